//! `coracle cert show`: the fields of certificates, as text or as JSON.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use coracle_tls::Certificate;
use serde::Serialize;

use super::CertError;
use crate::output::{Format, harmless};
use crate::tls::{TlsFileError, read};

const DAY_SECS: i64 = 24 * 3600;

/// Show what certificates say
#[derive(Args, Clone, Debug)]
pub(super) struct Show {
    /// The files of the certificates
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Text for people, or one JSON object per certificate
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Shown {
    file: String,
    subject: String,
    names: Vec<String>,
    issuer: String,
    from: String,
    to: String,
    days_left: i64,
}

impl Show {
    pub(super) fn run(&self) -> Result<(), CertError> {
        let mut out = io::stdout().lock();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        for path in &self.files {
            let certificate = read(path)?.certificate().map_err(TlsFileError::from)?;
            let shown = Shown::new(path.display().to_string(), certificate, now);
            match self.output {
                Format::Text => shown.write_text(&mut out)?,
                Format::Json | Format::Jsonl => {
                    serde_json::to_writer(&mut out, &shown).map_err(io::Error::from)?;
                    writeln!(out)?;
                }
            }
        }
        Ok(())
    }
}

impl Shown {
    fn new(file: String, certificate: Certificate, now: i64) -> Self {
        let addresses = certificate.addresses.iter().map(ToString::to_string);
        let names = certificate.uris.into_iter().chain(certificate.dns_names).chain(addresses).collect();
        Self {
            file,
            subject: certificate.subject,
            names,
            issuer: certificate.issuer,
            from: time(certificate.from),
            to: time(certificate.to),
            days_left: (certificate.to - now).div_euclid(DAY_SECS),
        }
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { file, subject, names, issuer, from, to, days_left } = self;
        let names = names.join(", ");
        let text = format!(
            "{file}\n  subject    {}\n  names      {}\n  issuer     {}\n  from       {from}\n  to         {to}\n  days left  {days_left}",
            harmless(subject),
            harmless(&names),
            harmless(issuer),
        );
        writeln!(out, "{text}")
    }
}

/// Formats seconds since 1970.
fn time(secs: i64) -> String {
    let secs = u64::try_from(secs).unwrap_or(0);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs)).to_string()
}
