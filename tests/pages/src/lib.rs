//! The Rust blocks of CONTRIBUTING and of all pages, compiled, so that none shows what does not work.
//!
//! A block whose fence names a file of a package, as in `rust policies/src/request/maintenance.rs`, is a module; any other
//! is the inside of an asynchronous function.

include!(concat!(env!("OUT_DIR"), "/blocks.rs"));

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_policies::{
        kind::Attached,
        request::Posture,
        testing::{Clock, Request},
        verdict::Verdict,
    };
    use selvedge_tests::pages;
    use serde_json::json;

    use super::contributing_maintenance::KIND;

    /// Counted by other means than those of the build script.
    #[test]
    fn every_rust_block_is_compiled() {
        let compiled = include_str!(concat!(env!("OUT_DIR"), "/blocks.rs"));
        let fences: usize = pages::all().iter().map(|page| page.text.matches("```rust").count()).sum();
        assert!(fences > 1, "{fences} blocks in the pages");
        assert_eq!(compiled.lines().filter(|line| line.starts_with("// ") && line.contains(".md:")).count(), fences);
    }

    /// The first policy that somebody writes leaves no door open.
    #[test]
    fn the_policy_of_the_recipe_decides_whatever_there_is_to_decide() {
        let (mut clock, web) = (Clock::default(), Request::new("GET", "/").from("shop/web"));
        let spec = json!({ "until": clock.now().unix + 1 });
        let documents = [Attached { name: "shop/works".into(), spec }];
        let policy = (KIND.compile)(&documents, Posture::Allow, None).unwrap().expect("something to decide");
        let (request, connection) = (web.facts(), web.connection());
        let decide = |now| {
            [
                policy.on_request(&request, now),
                policy.on_connection(&connection, now),
                policy.on_open_request(&request, now),
                policy.on_open_connection(&connection, now),
            ]
        };
        let refused = |verdict: &Verdict| matches!(verdict, Verdict::Answer(answer) if &*answer.policy == "shop/works");
        assert!(decide(clock.now()).iter().all(refused), "{:?}", decide(clock.now()));
        let later = clock.advance(Duration::from_secs(1));
        assert!(decide(later).iter().all(|verdict| *verdict == Verdict::Continue), "{:?}", decide(later));
    }
}
