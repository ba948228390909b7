//! One HTTP/1.1 connection of the load client. It shares two cores with what it measures, so it does as little
//! as it can: the request is ready bytes, of the answer it reads the status and the length. It follows nothing,
//! repeats nothing and takes no chunked answers: no server measured here sends any to these requests.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::net::TcpStream;

/// Larger answers are refused: nothing measured here sends one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4 * 1024;

pub(crate) struct Connection {
    address: SocketAddr,
    /// `None` after the server closed it; the next exchange opens a new one.
    stream: Option<TcpStream>,
    /// Not cleared between answers: what is received overwrites it.
    buffer: Vec<u8>,
    body: Range<usize>,
    is_behind: bool,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = Some(connect(address).await?);
        Ok(Self { address, stream, buffer: vec![0; READ_BYTES], body: 0..0, is_behind: false })
    }

    /// Sends a whole request and returns the status of its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        send(&stream, request).await?;
        let answer = receive(&stream, &mut self.buffer).await?;
        (self.body, self.is_behind) = (answer.body, answer.is_behind);
        // An error on the way leaves no stream here: half an answer must not meet the next request.
        self.stream = answer.keeps_alive.then_some(stream);
        Ok(answer.status)
    }

    /// Of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    /// Whether the last answer said that it does not show all that it should.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes at once what the socket takes, which is nearly always all of it.
pub(crate) async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn receive(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Answer> {
    let mut received = 0;
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer[received..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => received += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(answer) = parse(&buffer[..received])? {
            return Ok(answer);
        }
        if received == ANSWER_BYTES_MAX {
            return Err(invalid("the answer is too large"));
        }
        if received == buffer.len() {
            buffer.resize((2 * received).min(ANSWER_BYTES_MAX), 0);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Range<usize>,
    keeps_alive: bool,
    is_behind: bool,
}

/// `None` until all of it is there.
fn parse(received: &[u8]) -> io::Result<Option<Answer>> {
    let Some(head_end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..head_end]).map_err(|_| invalid("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("not an answer of HTTP/1.1"))?;
    let (mut length, mut keeps_alive, mut is_behind) = (0, true, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| invalid("an unreadable length"))?;
        } else if name.eq_ignore_ascii_case("connection") {
            keeps_alive = !value.trim().eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("a chunked answer"));
        } else if name.eq_ignore_ascii_case("chat-behind") {
            is_behind = true;
        }
    }
    let body = head_end + 4..head_end + 4 + length;
    Ok((received.len() >= body.end).then_some(Answer { status, body, keeps_alive, is_behind }))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nChat-Behind: 1\r\n\r\nhi";
        let answer = parse(whole).unwrap().unwrap();
        assert_eq!((answer.status, &whole[answer.body]), (201, &b"hi"[..]));
        assert!(answer.keeps_alive && answer.is_behind);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]).unwrap(), None, "{end} bytes");
        }
        let last = b"HTTP/1.1 204 No Content\r\nconnection: Close\r\n\r\n";
        assert_eq!(
            parse(last).unwrap(),
            Some(Answer { status: 204, body: 46..46, keeps_alive: false, is_behind: false })
        );
    }

    #[test]
    fn what_is_no_answer() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
