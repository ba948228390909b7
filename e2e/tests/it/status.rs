//! Where the projection stands, as metrics and as `projector status --watch` tell.

use std::time::Duration;

#[cfg(feature = "real")]
use e2e::{Backend, eventually, process::Signal};
use e2e::{TestApp, within};

e2e::scenarios!(the_figures_of_the_projection_move);

#[cfg(feature = "real")]
e2e::real_scenarios!(a_watched_status_goes_on_until_it_is_ended);

/// The value of a metric without labels.
fn figure(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
}

async fn the_figures_of_the_projection_move(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    let mut next_version = e2e::poison("samer", "lena", 2, "spoilt");
    next_version.envelope.version = 2;
    app.plant(next_version).await;
    let operations = app.operations().pop().unwrap();
    // Parked events are looked at every 10 s.
    within(Duration::from_secs(25), "all is applied, and one is parked", async || {
        let page = operations.get("/metrics").send().await.expect(200);
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let of = |name| figure(&page, name);
        let still = ["projector_lag_events", "projector_lag_seconds", "projector_pending_events"];
        let settled = still.iter().all(|name| of(name) < f64::EPSILON);
        let parked = (of("projector_parked_events") - 1.0).abs() < f64::EPSILON;
        (settled && parked && of("projector_parked_oldest_seconds") < 60.0).then_some(())
    })
    .await;
    app.discard_parked(projector::Which::All).await;
}

#[cfg(feature = "real")]
async fn a_watched_status_goes_on_until_it_is_ended() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for signal in [Signal::TERM, Signal::INT] {
        let mut watching = app.processes().watch_status();
        let lines = watching.output().lines().count();
        samer.send(&lena, "hi").await;
        eventually("it looks and looks again", async || {
            let output = watching.output();
            let looks = output.lines().skip(lines).filter(|line| line.starts_with("generation 1: lag 0, "));
            (looks.count() >= 2).then_some(())
        })
        .await;
        assert!(watching.output().contains(" projector-1/1="), "{}", watching.output());
        watching.signal(signal).unwrap();
        watching.ended().await.unwrap();
    }
    app.finish().await;
}
