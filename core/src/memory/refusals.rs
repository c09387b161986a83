//! Which requests are rejected at which limit.

use crate::replica::Request;

pub(super) const WRITES_REFUSED: u8 = 1;
pub(super) const PAGES_REFUSED: u8 = 2;
pub(super) const ALL_REFUSED: u8 = 4;

/// The bits of `refused` that reject this request. Requests that an operator needs when memory is
/// short have none.
pub(super) fn refusing(request: &Request) -> u8 {
    let of_page = |is_scan: bool| if is_scan { ALL_REFUSED | PAGES_REFUSED } else { ALL_REFUSED };
    match request {
        Request::Write { command, .. } if command.only_deletes() => ALL_REFUSED,
        Request::Write { .. } => ALL_REFUSED | WRITES_REFUSED,
        Request::Read { .. } => of_page(request.is_scan()),
        Request::LinearizableRead(query) => of_page(query.is_scan()),
        Request::Backup(_) => ALL_REFUSED | PAGES_REFUSED,
        Request::Watch(watch) => watch.begins().map_or(0, of_page),
        Request::Status
        | Request::Members
        | Request::ChangeMembers(_)
        | Request::Transfer(_)
        | Request::Resign => 0,
    }
}
