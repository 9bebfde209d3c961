//! What policies that need the content of requests are told, and that the service gets it all the same.

use super::*;

/// Looks at the first 16 bytes.
struct ReadsContent;

impl RequestPolicy for ReadsContent {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        let (content, refusal) = (request.body, Answer::refuse(Reason::PolicyDenied, "shop/reads".into()));
        if content.start.starts_with(b"evil") {
            return Verdict::Answer(refusal);
        }
        if !content.is_whole && request.headers.contains_key("x-strict") {
            return Verdict::Answer(Answer { status: StatusCode::PAYLOAD_TOO_LARGE, ..refusal });
        }
        let (name, value) = named("x-seen", &format!("{} {}", content.start.len(), content.is_whole));
        context.changes().request.set(name, value);
        Verdict::Continue
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Continue
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_attempt(&self, request: &RequestFacts<'_>, attempt: &AttemptFacts<'_>, context: &mut Context) -> Verdict {
        let (name, value) = named("x-try", &format!("{} {}", attempt.number, request.body.start.len()));
        context.changes().request.set(name, value);
        Verdict::Continue
    }

    fn needs(&self) -> Needs {
        Needs { body: 16, attempts: true, ..Needs::default() }
    }
}

/// Answers each request with all of its bytes, once they are there.
async fn repeats() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut all, mut buffer) = (String::new(), [0; 4096]);
                while !is_over(&all) {
                    match socket.read(&mut buffer).await {
                        Ok(read @ 1..) => all += std::str::from_utf8(&buffer[..read]).unwrap(),
                        _ => return,
                    }
                }
                socket.write_all(ok("connection: close\r\n", &all).as_bytes()).await.unwrap();
            });
        }
    });
    address
}

fn is_over(request: &str) -> bool {
    let Some((head, content)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    match head.contains("transfer-encoding: chunked") {
        true => content.contains("0\r\n") && content.ends_with("\r\n\r\n"),
        false => content.len() >= length.unwrap_or(0),
    }
}

fn sidecar(calls: Option<Duration>, forward: SocketAddr, endpoints: Vec<Arc<EndpointConfig>>, reads: bool) -> Sidecar {
    let policies = reads.then(|| Arc::new(ReadsContent) as Arc<dyn RequestPolicy>);
    let (protocol, policies) = (AppProtocol::Http, PolicySet::of(policies));
    Sidecar::of(Plan { calls, protocol, policies, endpoints, forward, trust: Arc::default() })
}

/// A POST with these fields, of which `said` is sent; and what is answered when `then` follows after some time.
async fn post(sidecar: &Sidecar, fields: &str, said: &str, then: &str) -> String {
    let mut socket = TcpStream::connect(sidecar.address).await.unwrap();
    let head = format!("POST /x HTTP/1.1\r\nhost: api.shop:80\r\nconnection: close\r\n{fields}\r\n");
    socket.write_all((head + said).as_bytes()).await.unwrap();
    let mut answer = String::new();
    if !then.is_empty() {
        if fields.contains("expect") {
            answer = timeout(BOUND, read_until(&mut socket, "\r\n\r\n")).await.expect("it is told to go on").unwrap();
        } else {
            tokio::time::sleep(2 * crate::filter::CONTENT).await;
        }
        socket.write_all(then.as_bytes()).await.unwrap();
    }
    timeout(BOUND, socket.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    answer
}

#[tokio::test]
async fn policies_see_the_start_of_the_content_and_the_service_gets_all_of_it() {
    let forward = repeats().await;
    let (reads, plain) = (sidecar(None, forward, Vec::new(), true), sidecar(None, forward, Vec::new(), false));
    let long: String = (0..40_000).map(|n| format!("{n:05}")).collect();
    let of_length = |length: usize| format!("content-length: {length}\r\n");
    let chunked = "transfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n".to_owned();
    for (fields, said, then, seen) in [
        (of_length(5), "hello", "", "5 true"),
        (of_length(16), "0123456789abcdef", "", "16 true"),
        (of_length(17), "0123456789abcdefg", "", "16 false"),
        (of_length(long.len()), &long, "", "16 false"),
        (of_length(0), "", "", "0 true"),
        (String::new(), "", "", "0 true"),
        (chunked.clone(), "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n", "", "5 true"),
        (of_length(5) + "expect: 100-continue\r\n", "", "hello", "5 true"),
        (of_length(10), "0123", "456789", "4 false"),
        (chunked, "2\r\nhe\r\n", "3\r\nllo\r\n0\r\nx-sum: 1\r\n\r\n", "2 false"),
    ] {
        let (told, same) = tokio::join!(post(&reads, &fields, said, then), post(&plain, &fields, said, then));
        assert!(told.contains(&format!("x-seen: {seen}\r\n")), "{fields}: {told}");
        let tries = format!("x-try: 0 {}\r\n", seen.split(' ').next().unwrap());
        assert!(told.contains(&tries), "{fields}: tries see it, too: {told}");
        let without = |told: &str| -> Vec<String> {
            let lines = told.split("\r\n").filter(|line| !["x-seen", "x-try"].iter().any(|own| line.starts_with(own)));
            let by_chance = |line: &&str| line.starts_with("date: ") || line.starts_with("x-request-id: ");
            lines.filter(|line| !by_chance(line)).map(str::to_owned).collect()
        };
        let request = |told: &str| without(told.split_once("POST /x").unwrap().1);
        assert_eq!(request(&told), request(&same), "{fields}: as if nobody had looked");
    }
}

#[tokio::test]
async fn what_policies_do_not_let_pass_does_not_come_to_the_service() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reads = sidecar(None, nobody.local_addr().unwrap(), Vec::new(), true);
    let refused = post(&reads, "content-length: 11\r\n", "evil thing!", "").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let too_long = post(&reads, "x-strict: 1\r\ncontent-length: 17\r\n", "0123456789abcdefg", "").await;
    assert!(too_long.starts_with("HTTP/1.1 413 "), "{too_long}");
    let too_slow = post(&reads, "x-strict: 1\r\ncontent-length: 9\r\n", "0123", "").await;
    assert!(too_slow.starts_with("HTTP/1.1 413 "), "{too_slow}");
    assert!(timeout(Duration::ZERO, nobody.accept()).await.is_err(), "the service is not called");
}

/// One endpoint takes no connection; whoever tried it first tries the other one.
#[tokio::test]
async fn what_was_read_ahead_can_be_sent_again() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let forward = repeats().await;
    for _ in 0..30 {
        let endpoints = [nobody, forward].map(|address| endpoint("shop/oracle:80", address)).to_vec();
        let calls = sidecar(Some(BOUND), forward, endpoints, true);
        let told = post(&calls, "content-length: 17\r\n", "0123456789abcdefg", "").await;
        assert!(told.contains("x-seen: 16 false\r\n") && told.ends_with("0123456789abcdefg"), "{told}");
        if told.contains("x-try: 1 16\r\n") {
            return;
        }
    }
    panic!("the endpoint that takes no connection was never first");
}
