//! Line-based test client, which knows nothing of the protocol except that it consists of lines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::TIMEOUT;

/// One TCP connection to a server.
#[derive(Debug)]
pub struct Talk {
    reader: BufReader<TcpStream>,
}

/// An error: the server has ended, or has closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Talk {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When no server listens at `address`.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Uses an existing connection.
    ///
    /// # Errors
    ///
    /// When the operating system rejects its options.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Connects to a server that must be running.
    ///
    /// # Panics
    ///
    /// When the connection fails.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the server takes a connection")
    }

    /// Sends arbitrary bytes.
    ///
    /// # Panics
    ///
    /// When the server does not accept them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("the server takes bytes");
    }

    /// Sends these bytes.
    ///
    /// # Errors
    ///
    /// When the connection is broken.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.reader.get_mut().write_all(bytes).map_err(|_| Broken)
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        self.send(format!("{line}\n"));
    }

    /// Receives the next line, without its line break.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn hear(&mut self) -> String {
        self.try_hear().expect("the server says something")
    }

    /// Receives the next line, without its line break.
    ///
    /// # Errors
    ///
    /// [`Broken`] when the connection ends before a line is complete.
    ///
    /// # Panics
    ///
    /// When no line arrives within the timeout, or when a line does not end in a bare `\n`.
    pub fn try_hear(&mut self) -> Result<String, Broken> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {
                line.pop();
                assert!(!line.ends_with('\r'), "replies end in \\n alone");
                Ok(line)
            }
            Ok(_) => Err(Broken),
            Err(error) => {
                let is_silence = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!is_silence, "waited in vain for a line");
                Err(Broken)
            }
        }
    }

    /// Receives a line, which must be exactly this one.
    ///
    /// # Panics
    ///
    /// When the server sends something else.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    /// Sends a line and receives a reply, which must be exactly this one.
    #[track_caller]
    pub fn exchange(&mut self, line: &str, reply: &str) {
        self.say(line);
        assert_eq!(self.hear(), reply, "in reply to {line}");
    }

    /// Sends a line. Returns the reply as JSON.
    ///
    /// # Panics
    ///
    /// When the reply is not JSON.
    pub fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear_json()
    }

    /// Receives the next line as JSON.
    ///
    /// # Panics
    ///
    /// When it is not JSON.
    pub fn hear_json(&mut self) -> Value {
        let line = self.hear();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the reply {line}"))
    }

    /// Waits until the server closes the connection, without another line.
    ///
    /// # Panics
    ///
    /// When the server sends something.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.try_hear(), Err(Broken), "the connection should be closed");
    }

    /// Closes the sending direction; replies still arrive.
    ///
    /// # Panics
    ///
    /// When the connection is closed.
    pub fn hang_up(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Receives everything until the end of the connection.
    ///
    /// # Panics
    ///
    /// When the connection does not end, or breaks.
    pub fn hear_all(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the connection ends in order");
        rest
    }

    /// Sends `bytes` repeatedly and reads nothing, until the server accepts no more for `patience`.
    /// Returns the number of accepted bytes, at most about `bytes_max`.
    ///
    /// # Panics
    ///
    /// When the connection breaks.
    pub fn flood(&mut self, bytes: &[u8], bytes_max: usize, patience: Duration) -> usize {
        let stream = self.reader.get_mut();
        stream.set_write_timeout(Some(patience)).expect("a timeout can be set");
        let mut taken = 0;
        while taken < bytes_max {
            match stream.write(&bytes[taken % bytes.len()..]) {
                Ok(len) => taken += len,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    break;
                }
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
        taken
    }
}
