//! Checks of the files that prove who a server and its clients are: whether a server can load them,
//! and when certificates end.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Check;
use crate::serve::Started;

const DAY_SECS: i64 = 24 * 3600;
/// The number of days before the end of a certificate from which a check warns. The same as in the
/// reports of a server.
const WARN_DAYS: i64 = 30;

/// Loads the files as a start does. This finds files that others can read, keys that do not fit,
/// and certificates that name another node or cluster.
pub(super) fn checks(server: &Started) -> Vec<Check> {
    const CHECK: &str = "credentials";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match server.certificate_ends() {
        Err(error) => vec![Check::fail(CHECK, error.to_string())],
        Ok(None) => vec![Check::ok(CHECK, "the settings name no certificate and no token file")],
        Ok(Some(ends)) => {
            let loaded = Check::ok(CHECK, "a server can load the certificates, keys and tokens");
            [loaded].into_iter().chain(ends.iter().map(|end| judge(&end.path, end.at - now))).collect()
        }
    }
}

/// Judges a certificate by the seconds until its end.
fn judge(path: &Path, left: i64) -> Check {
    const CHECK: &str = "certificate";
    let (path, days) = (path.display(), left.div_euclid(DAY_SECS));
    if left < 0 {
        Check::fail(CHECK, format!("{path} has ended: make a new one with `coracle cert renew`"))
    } else if days < WARN_DAYS {
        Check::warn(CHECK, format!("{path} ends in {days} days: renew it with `coracle cert renew`"))
    } else {
        Check::ok(CHECK, format!("{path} is valid for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_certificate_warns_in_its_last_month_and_fails_after_it() {
        let verdict = |left| judge(Path::new("a.pem"), left).verdict;
        assert_eq!(verdict(-1), Verdict::Fail);
        assert_eq!(verdict(0), Verdict::Warn);
        assert_eq!(verdict(30 * DAY_SECS - 1), Verdict::Warn);
        assert_eq!(verdict(30 * DAY_SECS), Verdict::Ok);
    }
}
