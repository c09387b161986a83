//! One session of a watch with one server: from the request to the end of the connection.

use std::time::Duration;

use super::Watch;
use super::lines::{Content, Line, output_is_closed, print};
use crate::address::Address;
use crate::commands::{CommandError, Context};
use crate::connection::ConnectionError;
use crate::reply::{NotAReply, Refusal, Reply};
use crate::request::{Effect, Request};

/// The longest silence of a server that works: twice the time in which it sends a line.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Where a session begins.
#[derive(Debug)]
pub(super) enum Position {
    /// With the next change.
    Present,
    /// With the present content, of which this part is printed.
    Content(Content),
    /// With the changes after this revision.
    After(u64),
}

impl Position {
    pub(super) fn content() -> Self {
        Self::Content(Content::default())
    }
}

/// How a session ended.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Whether the server served the watch.
    pub(super) has_begun: bool,
    /// The server's reason, if it gave one.
    pub(super) refusal: Option<Refusal>,
    pub(super) cause: Option<ConnectionError>,
    pub(super) not_a_reply: Option<NotAReply>,
}

/// A watch that is followed from server to server.
pub(super) struct Follower<'a, 'b> {
    watch: &'a Watch,
    position: Position,
    cluster: Option<Box<str>>,
    context: &'a mut Context<'b>,
    /// Whether any server has served it.
    pub(super) has_begun: bool,
}

impl<'a, 'b> Follower<'a, 'b> {
    pub(super) fn new(watch: &'a Watch, position: Position, context: &'a mut Context<'b>) -> Self {
        Self { watch, position, cluster: None, context, has_begun: false }
    }

    fn request(&self) -> String {
        let (prefix, key) = match &self.watch.key {
            Some(key) => (None, Some(key.as_str())),
            None => (Some(self.watch.prefix.as_str()), None),
        };
        let (initial, from) = match self.position {
            Position::Present => (false, None),
            Position::Content(_) => (true, None),
            Position::After(rev) => (false, Some(rev.saturating_add(1))),
        };
        Request::Watch { prefix, key, initial, from, cluster: self.cluster.as_deref() }.to_line()
    }

    /// Prints what a server sends, until the connection or the watch ends.
    pub(super) fn follow(&mut self, address: &Address) -> Result<End, CommandError> {
        let lost = |cause| End { cause: Some(cause), ..End::default() };
        let mut connection = match self.context.caller.connect(address, SILENCE_MAX) {
            Ok(connection) => connection,
            Err(cause) => return Ok(lost(cause)),
        };
        let mut line = match connection.exchange(&self.request()) {
            Ok(line) => line,
            Err(cause) => return Ok(lost(cause)),
        };
        if let Position::Content(content) = &mut self.position {
            content.begin_again();
        }
        let mut has_begun = false;
        loop {
            match self.take(&line)? {
                Step::GoOn => {
                    has_begun = true;
                    self.has_begun = true;
                }
                Step::Farewell => return Ok(End { has_begun, ..lost(ConnectionError::Closed) }),
                Step::Refused(refusal) => {
                    return Ok(End { has_begun, refusal: Some(refusal), ..End::default() });
                }
                Step::NotAReply => {
                    return Ok(End { has_begun, not_a_reply: Some(NotAReply), ..End::default() });
                }
            }
            match connection.receive() {
                Ok(next) => line = next,
                Err(cause) => return Ok(End { has_begun, ..lost(cause) }),
            }
        }
    }

    /// Processes a line of the server.
    fn take(&mut self, text: &str) -> Result<Step, CommandError> {
        let Ok(line) = serde_json::from_str::<Line<'_>>(text) else { return Ok(Step::NotAReply) };
        if line.is_error() || line.is_farewell() {
            let reply = Reply::parse(text.to_owned()).ok();
            let refusal = reply.and_then(|reply| reply.refusal(Effect::Reads)).filter(|_| line.is_error());
            return Ok(refusal.map_or(Step::Farewell, Step::Refused));
        }
        let Some(rev) = line.rev else { return Ok(Step::NotAReply) };
        if let Some(cluster) = line.cluster {
            self.cluster = Some(cluster);
            if matches!(self.position, Position::Present) {
                self.position = Position::After(rev);
            }
            return Ok(Step::GoOn);
        }
        let Self { position, context, .. } = self;
        if let Some(events) = &line.events {
            match position {
                Position::Content(content) => content.print(context, events, rev)?,
                _ => print(context, events)?,
            }
            context.out.flush()?;
        } else if output_is_closed() {
            return Err(CommandError::Output(std::io::ErrorKind::BrokenPipe.into()));
        }
        match position {
            Position::Content(content) if line.current == Some(true) => {
                content.finish(context, rev)?;
                context.out.flush()?;
                *position = Position::After(rev);
            }
            Position::Content(_) => {}
            Position::Present | Position::After(_) => *position = Position::After(rev),
        }
        Ok(Step::GoOn)
    }
}

enum Step {
    GoOn,
    /// The server closes the connection.
    Farewell,
    Refused(Refusal),
    NotAReply,
}
