//! The queries: the only list of them, modules and routes side by side.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

mod conversations;
mod events;
mod messages;

/// All routes of the read side, and their OpenAPI description.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(messages::messages))
        .routes(routes!(conversations::conversations))
        .routes(routes!(events::events))
}
