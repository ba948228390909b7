//! A request as the `curl` command that makes it, and its answer as `curl -i` prints it. Both are made of what went
//! over the wire, so that neither can say anything else; only what differs from run to run has a placeholder.

use std::fmt::Write;

use crate::client::{Answer, Request};

/// Longer than [`shared::limits::BODY_DEADLINE`].
const UNFINISHED_SECONDS: u32 = 15;

/// The headers of an answer that clients act on, in the order in which they are shown.
const HEADERS_SHOWN: [&str; 8] = [
    "content-type",
    "x-request-id",
    "www-authenticate",
    "allow",
    "retry-after",
    "ratelimit-policy",
    "ratelimit",
    "idempotency-replayed",
];

/// What an answer holds that is never the same: the member, and what stands for it.
const MEMBERS_HIDDEN: [(&str, &str); 2] = [("id", "01K…"), ("timestamp", "2026-…Z")];

/// What is shown in place of a value that only one run has. Those that begin with `$` are variables of the shell.
#[derive(Debug, Default, Clone)]
pub struct Placeholders(Vec<(String, &'static str)>);

impl Placeholders {
    pub fn hide(&mut self, value: &str, placeholder: &'static str) {
        self.0.push((value.to_owned(), placeholder));
    }

    fn put_into(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, (value, placeholder)| text.replace(value.as_str(), placeholder))
    }
}

impl Request {
    /// For a server at `host`.
    ///
    /// # Panics
    /// When it has bytes that are not text.
    #[must_use]
    pub fn curl(&self, host: &str, placeholders: &Placeholders) -> String {
        let body = std::str::from_utf8(&self.body.bytes).expect("a body of text");
        let quoted = |word: &str| quoted(word, placeholders);
        let mut words = vec![quoted(&format!("{host}{}", self.path))];
        for (name, value) in &self.headers {
            let value = value.to_str().expect("a header of visible ASCII");
            words.push(format!("-H {}", quoted(&format!("{}: {value}", title_case(name.as_str())))));
        }
        let (before, its_method, sent) = match (self.body.ends, body) {
            // `.`, not `-`: it shows the answer while it still waits for the rest of the body.
            (false, _) => {
                let begun = format!("(printf %s {}; sleep {UNFINISHED_SECONDS}) | ", quoted(body));
                (begun, "PUT", Some("-T .".to_owned()))
            }
            (true, "") => (String::new(), "GET", None),
            (true, _) => {
                let data = repeated(body).unwrap_or_else(|| quoted(body));
                (String::new(), "POST", Some(format!("-d {data}")))
            }
        };
        if its_method == "POST" && !self.headers.contains_key("content-type") {
            // It would send one of its own.
            words.push("-H 'Content-Type:'".to_owned());
        }
        words.extend(sent);
        let method = if self.method == its_method { String::new() } else { format!("-X {} ", self.method) };
        format!("{before}curl -i {method}{}", words.join(" \\\n  "))
    }
}

impl Answer {
    /// The status line, the headers that clients act on, and the body.
    ///
    /// # Panics
    /// When its body is not text.
    #[must_use]
    pub fn transcript(&self, placeholders: &Placeholders) -> String {
        let mut text = format!("HTTP/1.1 {} {}\n", self.status, self.reason);
        for name in HEADERS_SHOWN {
            let Some(value) = self.header(name) else { continue };
            // A 503 scatters it.
            let value = if (name, self.status) == ("retry-after", 503) { "N" } else { value };
            writeln!(text, "{name}: {value}").expect("a string takes everything");
        }
        let body = std::str::from_utf8(&self.body).expect("a body of text");
        let mut placeholders = placeholders.clone();
        let members: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        for (name, placeholder) in MEMBERS_HIDDEN {
            if let Some(value) = members[name].as_str() {
                placeholders.hide(value, placeholder);
            }
        }
        if !body.is_empty() {
            write!(text, "\n{body}\n").expect("a string takes everything");
        }
        placeholders.put_into(&text)
    }
}

/// As one word of a shell. In double quotes the shell puts variables in.
fn quoted(word: &str, placeholders: &Placeholders) -> String {
    let shown = placeholders.put_into(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_".contains(c);
    if shown != word {
        assert!(!shown.contains(['"', '`', '\\']), "not in double quotes: {shown}");
        format!("\"{shown}\"")
    } else if !word.is_empty() && word.chars().all(is_plain) {
        shown
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A long body of one character, as the command that makes it.
fn repeated(body: &str) -> Option<String> {
    let first = body.chars().next().filter(char::is_ascii_alphanumeric)?;
    let is_long = body.len() > 1_000 && body.chars().all(|c| c == first);
    is_long.then(|| format!("\"$(head -c {} /dev/zero | tr '\\0' {first})\"", body.len()))
}

/// `content-type` as it is written: `Content-Type`.
fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::Client;

    #[test]
    fn a_request_is_a_command() {
        let client = Client::new(([127, 0, 0, 1], 1).into());
        let mut placeholders = Placeholders::default();
        placeholders.hide("secret", "$TOKEN");
        for (request, command) in [
            (client.get("/send"), "curl -i localhost/send"),
            (client.get("/a?b=c&d"), "curl -i 'localhost/a?b=c&d'"),
            (client.post("/send"), "curl -i -X POST localhost/send"),
            (
                client.post("/send").token("secret").json(&json!({ "content": "it's" })),
                "curl -i localhost/send \\\n  -H \"Authorization: Bearer $TOKEN\" \\\n  \
                 -H 'Content-Type: application/json' \\\n  -d '{\"content\":\"it'\\''s\"}'",
            ),
            (
                client.put("/secret").body("text"),
                "curl -i -X PUT \"localhost/$TOKEN\" \\\n  -H 'Content-Type:' \\\n  -d text",
            ),
            (
                client.post("/send").header("content-type", "x").body("{").unfinished(),
                "(printf %s '{'; sleep 15) | curl -i -X POST localhost/send \\\n  -H 'Content-Type: x' \\\n  -T .",
            ),
            (
                client.post("/send").header("content-type", "x").body("x".repeat(1_001)),
                "curl -i localhost/send \\\n  -H 'Content-Type: x' \\\n  \
                 -d \"$(head -c 1001 /dev/zero | tr '\\0' x)\"",
            ),
        ] {
            assert_eq!(request.curl("localhost", &placeholders), command);
        }
    }

    #[test]
    fn an_answer_hides_what_is_never_the_same() {
        let headers = [("retry-after", "3"), ("x-request-id", "example"), ("date", "today")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let answer = |status| Answer {
            asked: "GET /".to_owned(),
            status,
            reason: "Words".to_owned(),
            headers: headers.iter().cloned().collect(),
            body: r#"{"id":"01KX","seq":1,"timestamp":"2026-11-22T09:30:00.125Z"}"#.into(),
            took: std::time::Duration::ZERO,
        };
        let rest = "\n\n{\"id\":\"01K…\",\"seq\":1,\"timestamp\":\"2026-…Z\"}\n";
        let mut placeholders = Placeholders::default();
        let shown = answer(503).transcript(&placeholders);
        assert_eq!(shown, format!("HTTP/1.1 503 Words\nx-request-id: example\nretry-after: N{rest}"));
        assert!(answer(429).transcript(&placeholders).contains("\nretry-after: 3\n"));
        placeholders.hide("01KX", "$ID");
        assert!(answer(200).transcript(&placeholders).contains(r#"{"id":"$ID","seq":1,"#));
    }
}
