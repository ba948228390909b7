//! From what the views' store says to what the client is told: the one match.

use shared::ports::StoreError;
use shared::process::problem::{Code, Problem};

/// Views that do not fit this program any more (a newer one has changed them) fit those that have taken its place: it is
/// a 503, with which the edge asks another instance.
pub(crate) fn of_views(error: StoreError) -> Problem {
    // It logs the cause, whatever is told of it.
    let problem = Problem::of_store(&error, Code::ViewsUnavailable);
    match error {
        StoreError::Unfit { .. } => {
            Problem::new(Code::ViewsUnavailable, "this instance is not for the views of today; try again")
        }
        StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Unreplicated { .. }
        | StoreError::Busy { .. }
        | StoreError::Other { .. }
        | StoreError::Damaged { .. } => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_is_told_of_views_that_cannot_be_read() {
        let (store, what) = ("cassandra", String::new());
        for (error, told) in [
            (StoreError::unavailable(store, io::Error::other("cause")), "503 views_unavailable"),
            (StoreError::Unfit { store, what: what.clone() }, "503 views_unavailable"),
            (StoreError::Other { store, what: what.clone() }, "503 views_unavailable"),
            (StoreError::Damaged { store, what }, "500 internal"),
        ] {
            let (status, code, _) = of_views(error).code.parts();
            assert_eq!(format!("{} {code}", status.as_u16()), told);
        }
    }
}
