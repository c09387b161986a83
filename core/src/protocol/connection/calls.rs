//! From a parsed line to a request for the cluster, or to a reply that needs no cluster.

use super::watch_requests::NewWatch;
use super::{Connection, Waiting};
use crate::kv::{ClientName, Session};
use crate::protocol::permission::{AuthError, Denied};
use crate::protocol::reply::{close, push_authenticated, push_bad_request, push_error, push_key, push_pong};
use crate::protocol::request::{BadRequest, Call, Question, Shape};
use crate::replica::Request;

impl Connection {
    /// Returns the request of a line of `bytes` bytes; `None`: the line was answered.
    pub(super) fn request_of(&mut self, call: Call, bytes: usize) -> Option<(Request, Waiting)> {
        if let Err(denied) = self.access.check(&call.question) {
            self.deny(&call, &denied);
            return None;
        }
        let Call { id, question, wants_meta } = call;
        let (request, shape) = match question {
            Question::Ping => {
                self.answer_at_once(|line| push_pong(line, id.as_deref()));
                return None;
            }
            Question::Auth(token) => {
                self.authenticate(token.as_str(), id.as_deref());
                return None;
            }
            Question::Write(command, session, shape) => {
                let session = match session {
                    Some(session) => Some(self.own_session(session, id.as_deref())?),
                    None => None,
                };
                (Request::Write { command, session, wants_meta }, shape)
            }
            Question::Read(query, shape) => (self.read(query), shape),
            Question::LinearizableRead(query, shape) => (Request::LinearizableRead(query), shape),
            Question::Transfer(node) => (Request::Transfer(node), Shape::Transfer),
            Question::Status => (Request::Status, Shape::Status),
            Question::Backup(piece) => (Request::Backup(piece), Shape::Backup),
            Question::Watch { selection, from, wants_content, cluster } => {
                let new = NewWatch { selection, from, wants_content, cluster };
                return self.open_watch(new, id, bytes);
            }
            Question::Unwatch(number) => {
                self.unwatch(number, id);
                return None;
            }
            Question::Members => (Request::Members, Shape::Members),
            Question::ChangeMembers(change) => (Request::ChangeMembers(change), Shape::Members),
        };
        Some((request, Waiting { id, shape, wants_meta, bytes }))
    }

    fn deny(&mut self, call: &Call, denied: &Denied) {
        let key = call.question.key().cloned();
        self.answer_at_once(|line| {
            push_error(line, denied.code(), &denied.message(), true);
            key.iter().for_each(|key| push_key(line, key));
            close(line, call.id.as_deref());
        });
    }

    /// Checks a token. After an invalid one, the connection rests before it parses the next line.
    fn authenticate(&mut self, token: &str, id: Option<&str>) {
        match self.access.authenticate(token) {
            Ok(name) => self.answer_at_once(|line| push_authenticated(line, &name, id)),
            Err(AuthError::NoTokens) => {
                let message = "this server has no tokens: send requests without \"auth\"".to_owned();
                let bad = BadRequest { id: id.map(Into::into), key: None, is_too_large: false, message };
                self.answer_at_once(|line| push_bad_request(line, &bad));
            }
            Err(AuthError::Invalid) => {
                self.rests = true;
                self.answer_at_once(|line| {
                    push_error(line, "unauthenticated", "the token is not valid", true);
                    close(line, id);
                });
            }
        }
    }

    /// Returns the session of a write as the cluster knows it; `None`: the line was answered.
    ///
    /// The first outcome of a write may state the value of its key. A client that may not read that
    /// key must not get this outcome by stating the session of another client. So the sessions of a
    /// client that is limited to prefixes have its name in front.
    fn own_session(&mut self, session: Session, id: Option<&str>) -> Option<Session> {
        let Some(name) = self.access.limited_name() else { return Some(session) };
        let client = ClientName::new(&format!("{name}:{}", session.client().as_str()));
        let owned = client.and_then(|client| Session::new(client, session.seq()));
        if owned.is_err() {
            let message = "\"client\" of the session is too long together with the name of the token".into();
            let bad = BadRequest { id: id.map(Into::into), key: None, is_too_large: false, message };
            self.answer_at_once(|line| push_bad_request(line, &bad));
        }
        owned.ok()
    }
}
