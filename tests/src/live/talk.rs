//! A client that knows nothing of the protocol but that it is made of lines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// One TCP connection to a server.
#[derive(Debug)]
pub struct Talk {
    reader: BufReader<TcpStream>,
}

/// The server is gone, or has closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Talk {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens at `address`.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Over this connection.
    ///
    /// # Errors
    ///
    /// When the operating system refuses its options.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Connects to a server that must be there.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the server takes a connection")
    }

    /// Sends these bytes, whatever they are.
    ///
    /// # Panics
    ///
    /// When the server does not take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("the server takes bytes");
    }

    /// Sends these bytes.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.reader.get_mut().write_all(bytes).map_err(|_| Broken)
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        self.send(format!("{line}\n"));
    }

    /// The next line, without its line break.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn hear(&mut self) -> String {
        self.try_hear().expect("the server says something")
    }

    /// The next line, without its line break, or [`Broken`] when the connection ends before one is
    /// whole.
    ///
    /// # Errors
    ///
    /// [`Broken`].
    ///
    /// # Panics
    ///
    /// When nothing happens at all, and when a line ends otherwise than in `\n`.
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

    /// Hears exactly this line.
    ///
    /// # Panics
    ///
    /// When the server says something else.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    /// Says a line and hears exactly this reply.
    #[track_caller]
    pub fn exchange(&mut self, line: &str, reply: &str) {
        self.say(line);
        assert_eq!(self.hear(), reply, "in reply to {line}");
    }

    /// Says a line; the reply as JSON.
    ///
    /// # Panics
    ///
    /// When the reply is no JSON.
    pub fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear_json()
    }

    /// The next line as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn hear_json(&mut self) -> Value {
        let line = self.hear();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the reply {line}"))
    }

    /// The server closes without another word.
    ///
    /// # Panics
    ///
    /// When it says something.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.try_hear(), Err(Broken), "the connection should be closed");
    }

    /// Sends no more; replies still come.
    ///
    /// # Panics
    ///
    /// When the connection is gone.
    pub fn hang_up(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Everything until the end of the connection.
    ///
    /// # Panics
    ///
    /// When it does not end, or breaks.
    pub fn hear_all(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).expect("the connection ends in order");
        rest
    }

    /// Sends `bytes` again and again and reads nothing, until the server takes no more for
    /// `patience`. Returns how many bytes it took; gives up at `bytes_max`.
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
