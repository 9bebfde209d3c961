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
        policy::{Posture, Role},
        testing::{Clock, Request},
        verdict::{Answer, Verdict},
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
        let Role::Decides(_, compile) = KIND.role else { panic!("the recipe decides") };
        let policy = compile(&documents, Posture::Allow, None).unwrap().expect("something to decide");
        let (request, connection) = (web.facts(), web.connection());
        let decide = |clock: &Clock| {
            let answer = |verdict| match verdict {
                Verdict::Continue => None,
                Verdict::Answer(answer) => Some(answer),
                pause => panic!("it waits for nothing: {pause:?}"),
            };
            [
                answer(policy.on_request(&request, &mut clock.context())),
                answer(policy.on_connection(&connection, &mut clock.context())),
                policy.on_open_request(&request, &mut clock.context()),
                policy.on_open_connection(&connection, &mut clock.context()),
            ]
        };
        let refused = |answer: &Option<Answer>| answer.as_ref().is_some_and(|answer| &*answer.policy == "shop/works");
        assert!(decide(&clock).iter().all(refused), "{:?}", decide(&clock));
        clock.advance(Duration::from_secs(1));
        assert!(decide(&clock).iter().all(Option::is_none), "{:?}", decide(&clock));
    }
}
