//! The messages: requests by what the service has to get, answers by what the caller has to.

use selvedge_tests::pair::HOST;

/// A request that some client sends.
pub(crate) struct Row {
    pub(crate) what: String,
    /// Method and target.
    start: String,
    version: &'static str,
    /// The fields, each as it is sent. `Host` and `Connection: close` are added where nothing is said of them.
    fields: Vec<String>,
    /// The content, as it is framed.
    framed: &'static str,
    /// Method and target as they arrive.
    arrives: String,
    /// Lines that arrive of the head.
    gets: Vec<String>,
    /// What no line of the head that arrives begins with, in lower case.
    lacks: &'static [&'static str],
    /// What arrives of the content; `None` for whatever it is.
    content: Option<&'static str>,
}

impl Row {
    fn new(what: &str, start: &str, fields: &[&str]) -> Self {
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        Self {
            what: what.to_owned(),
            start: start.to_owned(),
            version: "HTTP/1.1",
            gets: fields.clone(),
            fields,
            framed: "",
            arrives: start.to_owned(),
            lacks: &[],
            content: None,
        }
    }

    /// What goes over the wire.
    pub(crate) fn sent(&self) -> String {
        let says = |name: &str| self.fields.iter().any(|field| field.to_lowercase().starts_with(name));
        let mut lines = vec![format!("{} {}", self.start, self.version)];
        if !says("host:") && self.version == "HTTP/1.1" {
            lines.push(format!("Host: {HOST}"));
        }
        lines.extend(self.fields.iter().cloned());
        if !says("connection:") && self.version == "HTTP/1.1" {
            lines.push("Connection: close".to_owned());
        }
        format!("{}\r\n\r\n{}", lines.join("\r\n"), self.framed)
    }

    /// What is wrong with what has arrived, by the answer of a service that tells.
    pub(crate) fn harm(&self, answer: &str) -> Option<String> {
        let first = answer.lines().next().unwrap_or_default();
        if first.get(9..12) != Some("200") {
            return Some(format!("it is answered with '{first}'"));
        }
        let seen = answer.split_once("\r\n\r\n").map_or("", |(_, seen)| seen);
        let (head, content) = seen.split_once("\r\n.....\r\n").unwrap_or((seen, ""));
        let mut lines = head.lines();
        let start = lines.next().unwrap_or_default();
        // A service that is asked directly gets an absolute target as it is.
        let is_same = |target: &str| start.rsplit_once(" HTTP/1.").is_some_and(|(start, _)| start == target);
        if !is_same(&self.arrives) && !is_same(&self.start) {
            return Some(format!("it arrives as '{start}'"));
        }
        let lines: Vec<(String, &str)> = lines.filter_map(field).collect();
        let lost = self.gets.iter().filter_map(|line| field(line)).find(|wanted| !lines.contains(wanted));
        if let Some((name, value)) = lost {
            return Some(format!("'{name}: {value}' does not arrive: {lines:?}"));
        }
        if let Some((name, _)) = lines.iter().find(|(name, _)| self.lacks.contains(&name.as_str())) {
            return Some(format!("{name} is added"));
        }
        let wanted = self.content.filter(|wanted| content != *wanted && chunks(content) != *wanted);
        wanted.map(|wanted| format!("'{wanted}' arrives as '{content}'"))
    }
}

/// Name in lower case and value of a line.
fn field(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().to_lowercase(), value.trim()))
}

/// The content in chunks.
fn chunks(framed: &str) -> String {
    let (mut content, mut rest) = (String::new(), framed);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or_default();
        let Some((chunk, after)) = after.split_at_checked(size).filter(|_| size > 0) else { break };
        content.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap_or(after);
    }
    content
}

/// All requests.
pub(crate) fn requests() -> Vec<Row> {
    let methods = ["PROPFIND", "MKCOL", "REPORT", "M-SEARCH", "PURGE", "get", "Delete", "!#$%&'*+-.^_`|~", "X"];
    let targets = [
        "/",
        "/?",
        "/??",
        "/a?b?c",
        "/a//b",
        "//",
        "/./a",
        "/a/..",
        "/a;b=c",
        "/a%2Fb",
        "/100%",
        "/%zz",
        "/%E9",
        "/%00",
        "/a\\b",
        "/a|b{c}\"[d]^",
        "/caf\u{e9}",
        "/?q=\u{20ac}",
        "/~user/:@!$&'()*+,=",
    ];
    let hosts = [
        "api.shop",
        "API.Shop",
        "api.shop.",
        "api.shop:",
        "api.shop:80",
        "api.shop:080",
        "a_b.shop",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8080",
        "xn--bcher-kva.shop",
        "a",
    ];
    let fields = [
        "X-Empty:",
        "X-Tabs: a\tb",
        "X-None:a",
        "X-Much:    a    ",
        "X-Quoted: \"a, b\", c;d=\"e\\\"f\"",
        "X-Latin: caf\u{e9}",
        "X-Colon: a:b::c",
        "!#$%&'*+-.^_`|~: token",
        "x_under_score: 1",
        "X.Dots: 1",
        "1: digit",
        "Cookie: a=b; c=\"d\"; e",
        "Accept: ,, text/html ,,",
        "Authorization: Basic Og==",
        "If-None-Match: W/\"a\", \"b\"",
        "Range: bytes=0-0,-1",
        "Date: Tue, 15 Nov 1994 08:12:31 GMT",
        "Referer: about:blank",
        "User-Agent: ()",
        "Content-Type: text/plain; charset=\"utf-8\"",
        "TE: trailers",
        "Max-Forwards: 10",
        "Warning: 299 - \"odd\"",
    ];
    let mut rows: Vec<Row> = methods.iter().map(|method| Row::new(method, &format!("{method} /x"), &[])).collect();
    rows.extend(targets.iter().map(|target| Row::new(target, &format!("GET {target}"), &[])));
    rows.extend(hosts.iter().map(|host| Row::new(host, "GET /x", &[&format!("Host: {host}")])));
    rows.extend(fields.iter().map(|field| Row::new(field, "GET /x", &[field])));
    rows.extend(absolute());
    rows.extend(framed());
    rows.extend(others());
    rows
}

/// Targets in absolute form (RFC 9112 section 3.2.2).
fn absolute() -> Vec<Row> {
    let forms = [
        ("http://api.shop/x", "api.shop"),
        ("http://api.shop:80/x", "api.shop"),
        ("http://api.shop/x", "api.shop:80"),
        ("http://API.shop/x", "api.shop"),
        ("http://api.shop:/x", "api.shop"),
        ("HTTP://api.shop/x", "api.shop"),
    ];
    let row = |(target, host): (&str, &str)| Row {
        arrives: "GET /x".to_owned(),
        ..Row::new(&format!("{target} for {host}"), &format!("GET {target}"), &[&format!("Host: {host}")])
    };
    let mut rows: Vec<Row> = forms.into_iter().map(row).collect();
    rows.push(Row { arrives: "GET /".to_owned(), ..row(("http://api.shop", "api.shop")) });
    rows.push(Row { arrives: "GET /?a".to_owned(), ..row(("http://api.shop?a", "api.shop")) });
    rows.push(Row { arrives: "GET //x/../y".to_owned(), ..row(("http://api.shop//x/../y", "api.shop")) });
    rows
}

/// Content, and its absence.
fn framed() -> Vec<Row> {
    let chunked = "Transfer-Encoding: chunked";
    let sized = |what: &str, start: &str| Row {
        framed: "hello",
        content: Some("hello"),
        ..Row::new(what, start, &["Content-Length: 5"])
    };
    let in_chunks = |what: &str, framed: &'static str, content: &'static str| Row {
        framed,
        gets: Vec::new(),
        content: Some(content),
        ..Row::new(what, "POST /x", &[chunked])
    };
    let bare = |start: &str| Row { lacks: &["content-length", "transfer-encoding"], ..Row::new(start, start, &[]) };
    vec![
        sized("GET with content", "GET /x"),
        sized("DELETE with content", "DELETE /x"),
        sized("OPTIONS with content", "OPTIONS /x"),
        sized("another method with content", "QUERY /x"),
        Row::new("GET of length 0", "GET /x", &["Content-Length: 0"]),
        Row::new("POST of length 0", "POST /x", &["Content-Length: 0"]),
        bare("OPTIONS /x"),
        bare("OPTIONS *"),
        bare("TRACE /x"),
        bare("DELETE /x"),
        bare("PROPFIND /x"),
        in_chunks("a chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        in_chunks("chunks", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello"),
        in_chunks("a size in capitals", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        in_chunks("a size with zeros before it", "0005\r\nhello\r\n000\r\n\r\n", "hello"),
        in_chunks("an extension", "5;name=value\r\nhello\r\n0;last\r\n\r\n", "hello"),
        in_chunks("an extension in quotes", "5;name=\"a;b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        in_chunks("no content in chunks", "0\r\n\r\n", ""),
        Row {
            framed: "hello",
            content: Some("hello"),
            gets: Vec::new(),
            ..Row::new("an expectation", "POST /x", &["Content-Length: 5", "Expect: 100-continue"])
        },
    ]
}

/// Connections, versions and numbers.
fn others() -> Vec<Row> {
    let http10 = |what: &str, fields: &[&str]| Row { version: "HTTP/1.0", ..Row::new(what, "GET /x", fields) };
    let hop = |what: &str, fields: &[&str]| Row { gets: Vec::new(), ..Row::new(what, "GET /x", fields) };
    let long = "x".repeat(16 * 1024);
    let many: Vec<String> = (0..90).map(|number| format!("X-{number}: {number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        http10("HTTP/1.0 without Host", &[]),
        http10("HTTP/1.0 with Host", &["Host: api.shop"]),
        Row {
            version: "HTTP/1.0",
            framed: "hello",
            content: Some("hello"),
            ..Row::new("HTTP/1.0 with content", "POST /x", &["Content-Length: 5"])
        },
        hop("Connection in capitals", &["CONNECTION: CLOSE"]),
        hop("an empty member of Connection", &["Connection: , close,,"]),
        hop("a field of the connection", &["X-Hop: 1", "Connection: close, X-Hop"]),
        hop("an upgrade that nobody takes", &["Connection: close, upgrade", "Upgrade: foo/2"]),
        hop(
            "an upgrade to HTTP/2 that nobody takes",
            &["Connection: close, upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
        ),
        hop("fields of proxies of old", &["Proxy-Connection: keep-alive", "Keep-Alive: timeout=5"]),
        Row::new("TRACE that counts its hops", "TRACE /x", &["Max-Forwards: 3"]),
        Row::new("OPTIONS that counts its hops", "OPTIONS /x", &["Max-Forwards: 0"]),
        Row::new("credentials for a proxy", "GET /x", &["Proxy-Authorization: Basic Og=="]),
        Row::new("Via", "GET /x", &["Via: 1.1 edge"]),
        Row::new("a long value", "GET /x", &[&format!("X-Long: {long}")]),
        Row::new("a long target", &format!("GET /{}", "y".repeat(8 * 1024)), &[]),
        Row::new("a field on several lines", "GET /x", &["X-Two: 1", "X-Two: 2"]),
        Row::new("many fields", "GET /x", &many),
    ]
}

/// An answer that some service gives.
pub(crate) struct Answer {
    pub(crate) what: &'static str,
    pub(crate) method: &'static str,
    /// As the service writes it.
    pub(crate) raw: String,
    /// The start line that the caller has to get.
    start: &'static str,
    /// Lines that it has to get of the head.
    gets: &'static [&'static str],
    content: &'static str,
}

impl Answer {
    /// Whether another request may follow it on its connection.
    pub(crate) fn keeps_connection(&self) -> bool {
        let has_end = self.content.is_empty()
            || self.raw.to_lowercase().contains("content-length: ")
            || self.raw.contains("chunked");
        has_end && self.raw.starts_with("HTTP/1.1")
    }

    /// What is wrong with what the caller got.
    pub(crate) fn harm(&self, got: &str) -> Option<String> {
        let (head, content) = got.split_once("\r\n\r\n").unwrap_or((got, ""));
        let mut lines = head.lines();
        let start = lines.next().unwrap_or_default();
        // Whoever asks in HTTP/1.1 may be answered in HTTP/1.0.
        let said = |start: &str| start.trim_end().get(8..).map(str::to_owned);
        if said(start) != said(self.start) {
            return Some(format!("'{}' comes as '{start}'", self.start));
        }
        let lines: Vec<(String, &str)> = lines.filter_map(field).collect();
        let lost = self.gets.iter().filter_map(|line| field(line)).find(|wanted| !lines.contains(wanted));
        if let Some((name, value)) = lost {
            return Some(format!("'{name}: {value}' does not come: {lines:?}"));
        }
        let is_same = content == self.content || chunks(content) == self.content;
        (!is_same).then(|| format!("'{}' comes as '{content}'", self.content))
    }
}

/// All answers.
pub(crate) fn answers() -> Vec<Answer> {
    let answer = |what, start: &'static str, gets: &'static [&'static str]| Answer {
        what,
        method: "GET",
        raw: format!("{start}\r\nContent-Length: 2\r\n{}\r\n\r\nok", [gets, &["X-Last: 1"]].concat().join("\r\n")),
        start,
        gets,
        content: "ok",
    };
    let raw =
        |what, method, raw: &str, start, gets| Answer { what, method, raw: raw.to_owned(), start, gets, content: "" };
    let ok = "HTTP/1.1 200 OK";
    let mut answers = vec![
        answer("a phrase of its own", "HTTP/1.1 200 All is well", &[]),
        answer("a long phrase", "HTTP/1.1 404 There is nothing here, and there never was; look elsewhere", &[]),
        answer("an unknown code with a phrase", "HTTP/1.1 299 Perhaps", &[]),
        answer("an unknown code without a phrase", "HTTP/1.1 299 ", &[]),
        answer("a code of one vendor", "HTTP/1.1 499 Client Closed Request", &[]),
        answer("a code of another", "HTTP/1.1 520 ", &[]),
        answer("a code above all classes", "HTTP/1.1 799 Odd", &[]),
        answer("an empty value", ok, &["X-Empty:"]),
        answer("space before the colon", ok, &["X-Space : 1"]),
        answer("a tab before the colon", ok, &["X-Tab\t: 1"]),
        answer("no space behind the colon", ok, &["X-None:a"]),
        answer("a name of odd letters", ok, &["!#$%&'*+-.^_`|~: token"]),
        answer("a name with underscores", ok, &["x_under: 1"]),
        answer(
            "cookies",
            ok,
            &["Set-Cookie: a=b; Path=/", "Set-Cookie: c=\"d, e\"; Expires=Tue, 15 Nov 1994 08:12:31 GMT"],
        ),
        answer("letters beyond ASCII", ok, &["X-Name: caf\u{e9}"]),
        answer("a relative place", "HTTP/1.1 302 Found", &["Location: ../x?a=<b>"]),
        answer("a refusal", "HTTP/1.1 401 Unauthorized", &["WWW-Authenticate: Basic realm=\"a, b\", Bearer"]),
    ];
    answers.extend([
        raw(
            "304 with the length of what has not changed",
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified",
            &["ETag: \"a\"", "Content-Length: 5"],
        ),
        raw(
            "304 without a length",
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            "HTTP/1.1 304 Not Modified",
            &["ETag: \"a\""],
        ),
        raw("204", "GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "HTTP/1.1 204 No Content", &["X-A: 1"]),
        raw("205", "GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 205 Reset Content", &[]),
        raw(
            "the length of what HEAD does not get",
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            ok,
            &["Content-Length: 5"],
        ),
        raw("no length for HEAD", "HEAD", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n", ok, &["X-A: 1"]),
        raw("nothing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok, &["Content-Length: 0"]),
    ]);
    answers.extend(framings());
    answers
}

/// Answers with the same content, each framed in another way.
fn framings() -> [Answer; 7] {
    let content = |what, raw: &str| Answer {
        what,
        method: "GET",
        raw: raw.to_owned(),
        start: "HTTP/1.1 200 OK",
        gets: &[],
        content: "hello",
    };
    [
        content("content to the end of the connection", "HTTP/1.1 200 OK\r\n\r\nhello"),
        content(
            "content in chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        content(
            "an extension of a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        ),
        content("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello"),
        content("HTTP/1.0 with a length", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        content(
            "a hint before it",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        content("one length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ]
}
