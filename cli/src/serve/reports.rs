//! Reports of a running server: its nodes' events on stderr, the line `ready ADDR` on stdout, and
//! both to a supervisor.

use std::io;
use std::net::SocketAddr;

use coracle_core::raft::Event;
use coracle_storage::{HostEvent, NodeEvent};

use super::diagnostics::Diagnostics;
use super::options::{LogLevel, ReadyWhen};
use super::outlet::Outlet;
use super::supervisor::{self, State};

/// Reports events, and `ready` once.
pub(super) struct Reports<'a> {
    diagnostics: &'a Diagnostics,
    /// The address for clients; `None` once it was reported.
    address: Option<SocketAddr>,
}

impl<'a> Reports<'a> {
    /// Creates reports for a server whose clients connect at `address`, and whose administrators at
    /// `admin` alone, if there is such an address.
    pub(super) fn new(
        diagnostics: &'a Diagnostics,
        when: ReadyWhen,
        [address, admin]: [Option<SocketAddr>; 2],
    ) -> Self {
        if let Some(admin) = admin {
            let what = format_args!(
                "{admin} is the address for administrators: changes of members, transfers of leadership and \
                 backups are answered there alone"
            );
            diagnostics.tell(LogLevel::Info, &what);
        }
        let mut reports = Self { diagnostics, address };
        if when == ReadyWhen::Listening {
            reports.report_ready();
        }
        reports
    }

    pub(super) fn event(&mut self, event: &HostEvent) {
        self.diagnostics.tell_event(event);
        match &event.event {
            NodeEvent::Raft(Event::Ready) => self.report_ready(),
            NodeEvent::Raft(Event::BecameLeader { .. } | Event::LeaderFound { .. }) => {
                supervisor::notify(&State::Status(event.to_string()));
            }
            _ => {}
        }
    }

    /// Prints the line `ready ADDR` on stdout. A closed or stalled stdout does not stop the server.
    fn report_ready(&mut self) {
        let Some(address) = self.address.take() else { return };
        supervisor::notify(&State::Ready);
        if let Ok(stdout) = Outlet::start(io::stdout(), |_| String::new()) {
            stdout.push(format!("ready {address}\n"));
        }
    }
}
