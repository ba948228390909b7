//! Strict reading of requests. The order of refusals is the API's: 413 and 415 before 400 before 422.

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::{Code, FieldError, Problem};
use crate::limits::{BODY_BYTES_DISCARDED_MAX, BODY_BYTES_MAX, BODY_DEADLINE};

/// The whole body of a request that says it is JSON. Reading it as something is a step of its own, so that a
/// handler can check what comes before (path, headers) first.
#[derive(Debug)]
pub struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(BODY_DEADLINE, collect(body))
            .await
            .map_err(|_| Problem::new(Code::Timeout, "the body did not arrive in time"))??;
        check_media_type(&parts.headers)?;
        Ok(Self(bytes))
    }
}

/// Reads on for a bounded while past the limit: a client that is still sending when the connection closes would
/// lose the answer.
async fn collect(mut body: axum::body::Body) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    let mut length = 0;
    while length <= BODY_BYTES_DISCARDED_MAX {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|_| Problem::invalid("the body ended early or is badly framed"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length == data.len() && length <= BODY_BYTES_MAX && body.is_end_stream() {
            // As nearly always: it came in one piece, and need not be copied.
            return Ok(data);
        }
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(Problem::new(Code::BodyTooLarge, format!("a body is at most {BODY_BYTES_MAX} bytes")));
    }
    Ok(bytes.freeze())
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse("an encoded body is not accepted");
    }
    let Some(media_type) = single(headers, &header::CONTENT_TYPE)? else {
        return refuse("the content type must be application/json");
    };
    let mut parts = media_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.filter(|part| !part.is_empty()).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if json && utf8 { Ok(()) } else { refuse("the content type must be application/json, in utf-8") }
}

/// The value of a header that may stand at most once.
///
/// # Errors
/// 400 when it is repeated or not visible ASCII.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(format!("the header {name} is repeated")));
    }
    value.to_str().map(Some).map_err(|_| Problem::invalid(format!("the header {name} is not visible ASCII")))
}

impl JsonBody {
    /// # Errors
    /// 400 `invalid_request` for what is not JSON, 422 `invalid_fields` for JSON of another shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read_json(&self.0)
    }
}

fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field.
    let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !object {
        check_syntax(bytes)?;
        return Err(Problem::fields(vec![FieldError::new("", "wrong_type", "the body is a JSON object")]));
    }
    serde_json::from_slice(bytes).map_err(|_| refusal::<T>(bytes))
}

/// Only a body that was refused is read again for the place where it is wrong, which takes longer.
fn refusal<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Problem {
    // A wrong shape is reported where it is met; what follows may still not be JSON at all.
    if let Err(problem) = check_syntax(bytes) {
        return problem;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => not_json(),
        Err(error) => Problem::fields(vec![field_error(&error)]),
    }
}

fn not_json() -> Problem {
    Problem::invalid("the body is not JSON")
}

fn check_syntax(bytes: &[u8]) -> Result<(), Problem> {
    serde_json::from_slice::<serde_json::Value>(bytes).map(drop).map_err(|_| not_json())
}

/// serde tells the kind of error in words only; the words have not changed since 1.0, and the tests pin them.
fn field_error(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let message = error.inner().to_string();
    let quoted = || message.split('`').nth(1).unwrap_or_default().to_owned();
    for (prefix, code, detail) in [
        ("missing field", "missing", "this field is required"),
        ("unknown field", "unknown", "there is no such field"),
        ("duplicate field", "duplicate", "a field stands once"),
    ] {
        if message.starts_with(prefix) {
            return FieldError::new(quoted(), code, detail);
        }
    }
    FieldError::new(error.path().to_string(), "wrong_type", "the value is of another type")
}

/// The query string: unknown parameters are ignored, known ones stand at most once.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::new(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    #[must_use]
    pub fn new(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// # Errors
    /// 400 when it is repeated.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            return Err(Problem::invalid(format!("the parameter {name} is repeated")));
        }
        Ok(value)
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// 400 when it is missing or repeated.
    pub fn required(&self, name: &str) -> Result<&str, Problem> {
        self.get(name)?.ok_or_else(|| Problem::invalid(format!("the parameter {name} is required")))
    }

    /// A whole number of `1..=max`, in plain digits.
    ///
    /// # Errors
    /// 400 for anything else: nothing is clamped.
    pub fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::invalid(format!("the parameter {name} is a whole number from 1 to {max}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Shape {
        name: String,
        count: Option<u64>,
    }

    fn refusal(json: &str) -> (&'static str, Option<(String, &'static str)>) {
        let problem = read_json::<Shape>(json.as_bytes()).unwrap_err();
        let field = problem.errors.first().map(|error| (error.field.clone(), error.code));
        (problem.code.parts().1, field)
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        let deep = format!("{{\"name\":{}1{}}}", "[".repeat(8_000), "]".repeat(8_000));
        for json in [
            "",
            " ",
            "{",
            "nul",
            "{\"name\":\"a\"} x",
            "{\"name\":1,",
            "{\"name\":\"a\",\"count\":NaN}",
            "{\"name\":\"a\",\"count\":1e999}",
            "{\"name\":\"\\ud800\"}",
            "\u{feff}{\"name\":\"a\"}",
            "{\"other\":\"\\ud800\"}",
            &deep,
        ] {
            assert_eq!(refusal(json), ("invalid_request", None), "{json:.40}");
        }
        let not_utf8 = read_json::<Shape>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert_eq!(not_utf8.code, Code::InvalidRequest);
    }

    #[test]
    fn json_of_another_shape_names_the_field() {
        for (json, field, code) in [
            ("[\"a\",1]", "", "wrong_type"),
            ("null", "", "wrong_type"),
            ("{}", "name", "missing"),
            ("{\"name\":1}", "name", "wrong_type"),
            ("{\"name\":null}", "name", "wrong_type"),
            ("{\"name\":\"a\",\"count\":-1}", "count", "wrong_type"),
            ("{\"name\":\"a\",\"count\":1.5}", "count", "wrong_type"),
            ("{\"name\":\"a\",\"x\":1}", "x", "unknown"),
            ("{\"name\":\"a\",\"name\":\"b\"}", "name", "duplicate"),
        ] {
            assert_eq!(refusal(json), ("invalid_fields", Some((field.to_owned(), code))), "{json}");
        }
    }

    #[test]
    fn queries() {
        let query = Query::new("a=1&b=x%20y&b=z&limit=050&neg=-1&plus=%2B1&big=4294967296&none=");
        assert_eq!(query.get("a").unwrap(), Some("1"));
        assert_eq!(query.get("c").unwrap(), None);
        assert!(query.get("b").is_err() && query.required("c").is_err());
        assert_eq!(query.number("limit", 100).unwrap(), Some(50));
        for name in ["neg", "plus", "none"] {
            assert!(query.number(name, 100).is_err(), "{name}");
        }
        assert!(query.number("big", 100).is_err());
    }
}
