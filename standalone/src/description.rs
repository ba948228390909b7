//! The description of the whole HTTP API, made from the code of its handlers: `/openapi.json`, and `/docs`, which
//! shows it without anything from elsewhere. nginx serves the same two files from `web/`.

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi};

/// Both sides' routes as one OpenAPI 3.1 document.
#[must_use]
pub fn describe() -> OpenApi {
    let mut api = command_api::routes().into_openapi();
    api.merge(query_api::routes().into_openapi());
    api.info = InfoBuilder::new()
        .title("Chat System")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An event-driven chat backend. Errors are application/problem+json with a stable code.",
        ))
        .build();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    api.components.get_or_insert_default().add_security_scheme("token", token);
    api
}

pub(crate) fn routes() -> serde_json::Result<Router> {
    let json = describe().to_pretty_json()?;
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], json) };
    let page = || async { Html(include_str!("../../web/docs.html")) };
    Ok(Router::new().route("/openapi.json", get(json)).route("/docs", get(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo run -p standalone -- openapi > web/openapi.json` writes it anew.
    #[test]
    fn the_file_that_nginx_serves_is_the_code() {
        let file = include_str!("../../web/openapi.json");
        assert_eq!(file.trim_end(), describe().to_pretty_json().unwrap().trim_end());
    }
}
