//! Whether a text is JSON (RFC 8259). It builds nothing: a parser would be a dependency for one question.

/// Deeper than any stored shape.
const DEPTH_MAX: usize = 64;

/// The offset of the first byte that cannot be.
pub(super) fn check(text: &str) -> Result<(), usize> {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    reader.value(0)?;
    reader.space();
    if reader.at == reader.bytes.len() { Ok(()) } else { Err(reader.at) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), usize> {
        self.space();
        match self.peek() {
            _ if depth > DEPTH_MAX => Err(self.at),
            Some(b'{') => self.sequence(b'}', |reader| {
                reader.space();
                reader.string()?;
                reader.space();
                reader.word(":")?;
                reader.value(depth + 1)
            }),
            Some(b'[') => self.sequence(b']', |reader| reader.value(depth + 1)),
            Some(b'"') => self.string(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number(),
        }
    }

    /// Items between commas, from the opening bracket to `close`.
    fn sequence(&mut self, close: u8, item: impl Fn(&mut Self) -> Result<(), usize>) -> Result<(), usize> {
        self.at += 1;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            if self.take(close) {
                return Ok(());
            }
            self.word(",")?;
        }
    }

    fn string(&mut self) -> Result<(), usize> {
        self.word("\"")?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(byte) if byte >= b' ' => self.at += 1,
                _ => return Err(self.at),
            }
        }
    }

    fn escape(&mut self) -> Result<(), usize> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    self.peek().filter(u8::is_ascii_hexdigit).ok_or(self.at)?;
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.at),
        }
    }

    fn number(&mut self) -> Result<(), usize> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.at) }
    }

    fn word(&mut self, word: &str) -> Result<(), usize> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.at);
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn json_is_told_from_what_only_looks_like_it() {
        for good in ["{}", " [1, -0.5e+3, \"\\u00e9\\n\", true, null, {\"a\": [{}]}] \n", "0", "\"\""] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "{",
            "{\"a\":1,}",
            "[1 2]",
            "01",
            "1.",
            "'a'",
            "{a:1}",
            "\"\n\"",
            "\"\\x\"",
            "nul",
            "{} {}",
            "NaN",
            "-",
        ];
        for bad in bad {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(check("{\"a\": tru}"), Err(6));
        assert!(check(&"[".repeat(100_000)).is_err());
    }
}
