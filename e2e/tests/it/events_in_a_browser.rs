//! A page in a real browser that logs in, opens the stream with `fetch` and sees a message arrive, through nginx: of the
//! same origin, and of another one that may.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Settings, Shape, TestApp};
use shared::process::config::CorsOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use xtask::servers::Browser;

e2e::real_scenarios!(a_page_sees_a_message_arrive, a_page_of_another_origin_sees_it_too);

const PAGE: &str = include_str!("events_in_a_browser/page.html");

/// A browser may be installed first, and takes a while to start.
const BROWSER_TIME_MAX: Duration = Duration::from_secs(60);

async fn a_page_sees_a_message_arrive() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let (door, address) = listen().await;
    seen_by_a_page(app, door, &format!("http://{address}/page?"), "open: 200 of own origin").await;
}

async fn a_page_of_another_origin_sees_it_too() {
    let (door, address) = listen().await;
    let origin = format!("http://{address}");
    let cors = CorsOptions { cors_origins: vec![origin.parse().expect("an origin")] };
    let settings = Settings { cors, ..Settings::default() };
    let app = TestApp::real(Shape { projectors: 1, settings, ..Shape::default() }).await;
    let page = format!("{origin}/page?api=http://{}&", app.address());
    seen_by_a_page(app, door, &page, "open: 200 of other origin").await;
}

async fn seen_by_a_page(app: TestApp, door: TcpListener, page: &str, open: &str) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let tasks = TaskTracker::new();
    let (reporting, report_address) = listen().await;
    tasks.spawn(serve_page(door, app.address(), tasks.clone()));
    let (sender, mut reports) = mpsc::unbounded_channel();
    tasks.spawn(take_reports(reporting, sender));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("{page}reports=http://{report_address}/");
    let browser_dir = dir.path().to_owned();
    let opening = tokio::task::spawn_blocking(move || Browser::open(&url, &browser_dir));
    let browser = opening.await.expect("no panic").expect("the browser starts");

    let mut seen = async || {
        let report = tokio::time::timeout(BROWSER_TIME_MAX, reports.recv()).await;
        report.expect("the page says something").expect("the page goes on")
    };
    assert_eq!(seen().await.trim(), open);
    samer.send(&lena, "can you see me?").await;
    assert_eq!(seen().await.trim(), format!("{open}\nsamer: can you see me?"));
    samer.send(&lena, "à bientôt").await;
    assert!(seen().await.trim().ends_with("\nsamer: à bientôt"));
    drop(browser);
    app.finish().await;
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the address of a listener");
    (listener, address)
}

/// The page, and behind it the system, so that both can be one origin.
async fn serve_page(door: TcpListener, system: SocketAddr, tasks: TaskTracker) {
    while let Ok((mut client, _)) = door.accept().await {
        tasks.spawn(async move {
            let mut begin = [0; 9];
            let asks_for_page = client.peek(&mut begin).await.is_ok_and(|_| &begin == b"GET /page");
            if asks_for_page {
                let _ = read_request(&mut client).await;
                let length = PAGE.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = client.write_all((head + PAGE).as_bytes()).await;
            } else if let Ok(mut server) = TcpStream::connect(system).await {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// What the page shows, whenever that changes.
async fn take_reports(listener: TcpListener, reports: mpsc::UnboundedSender<String>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(report) = read_request(&mut client).await else { continue };
        let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        if reports.send(report).is_err() {
            return;
        }
    }
}

/// The body of a whole request.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(body.to_owned());
            }
        }
        if client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
