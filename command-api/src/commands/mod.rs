//! The commands: the only list of them, modules and routes side by side.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

mod log_in;
mod log_out;
mod mark_read;
mod register_user;
mod send_message;

/// All routes of the write side, and their OpenAPI description.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(register_user::register_user))
        .routes(routes!(log_in::log_in))
        .routes(routes!(log_out::log_out))
        .routes(routes!(send_message::send_message))
        .routes(routes!(send_message::put_message))
        .routes(routes!(mark_read::mark_read))
}
