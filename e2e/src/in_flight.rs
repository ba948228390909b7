//! A request that its server is busy with for as long as a test wants.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::user::User;

/// A send without its body.
#[derive(Debug)]
pub struct InFlight {
    stream: TcpStream,
    body: String,
}

impl InFlight {
    /// Returns when the server waits for the body, past everything that comes before.
    ///
    /// # Panics
    /// When it does not ask for it.
    pub async fn send(door: SocketAddr, from: &User, to: &User, content: &str) -> Self {
        let body = json!({ "recipient": to.name, "content": content }).to_string();
        let head = format!(
            "POST /send HTTP/1.1\r\nHost: chat\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            from.token,
            body.len()
        );
        let mut stream = TcpStream::connect(door).await.expect("the server accepts");
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut asked = vec![0; expected.len()];
        stream.read_exact(&mut asked).await.expect("the server answers");
        assert_eq!(asked, expected, "{}", String::from_utf8_lossy(&asked));
        Self { stream, body }
    }

    /// Lets it end: what is answered until the server closes the connection.
    ///
    /// # Panics
    /// When the server does not read the body.
    pub async fn end(mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).await.expect("the server reads");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}
