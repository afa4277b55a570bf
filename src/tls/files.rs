//! A serving certificate in files that somebody else keeps, such as cert-manager.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::authority::Signed;
use super::server::ServingCertificate;

/// Time between two looks at the files.
const PAUSE: Duration = Duration::from_secs(10);

/// Bytes of a file with certificates or a key.
const MAX_FILE: u64 = 1 << 20;

/// Shows the certificate in two files, and any other that takes its place, until `stop` is cancelled.
///
/// # Errors
///
/// When the files cannot be read at the start, or do not fit. Later that is logged, and the last good one is shown on.
pub fn follow(
    certificate: PathBuf,
    key: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<Arc<ServingCertificate>> {
    let shown = Arc::new(ServingCertificate::default());
    let load = move |shown: &ServingCertificate| -> anyhow::Result<()> {
        let signed = Signed { certificate: read(&certificate)?, key: read(&key)? };
        let place = || format!("`{}` and `{}`", certificate.display(), key.display());
        shown.set(&signed).with_context(place)
    };
    load(&shown)?;
    tokio::spawn({
        let shown = Arc::clone(&shown);
        async move {
            while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
                if let Err(error) = load(&shown) {
                    tracing::warn!(
                        "cannot take up the serving certificate: {error:#}; showing the last good one"
                    );
                }
            }
        }
    });
    Ok(shown)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let read = || -> io::Result<String> {
        let length = std::fs::metadata(path)?.len();
        if length > MAX_FILE {
            return Err(io::Error::other(format!("{length} bytes are more than {MAX_FILE}")));
        }
        std::fs::read_to_string(path)
    };
    read().with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::{Authority, Validity};

    #[tokio::test(start_paused = true)]
    async fn what_takes_the_place_of_a_certificate_is_shown() {
        crate::tls::install_crypto();
        let validity = Validity::from_now(Duration::from_secs(3600));
        let (authority, _) = Authority::generate("x", validity).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
        let write = |signed: &Signed| {
            std::fs::write(&key, &signed.key).unwrap();
            std::fs::write(&certificate, &signed.certificate).unwrap();
        };
        let sign = || authority.server(&["x".to_owned()], &[], validity).unwrap();
        let (first, second) = (sign(), sign());
        assert!(follow(certificate.clone(), key.clone(), CancellationToken::new()).is_err());
        write(&first);
        let shown = follow(certificate.clone(), key.clone(), CancellationToken::new()).unwrap();
        assert!(shown.shows(&first));
        // A pair that does not fit is passed over.
        std::fs::write(&certificate, &second.certificate).unwrap();
        tokio::time::sleep(2 * PAUSE).await;
        assert!(shown.shows(&first));
        write(&second);
        tokio::time::sleep(2 * PAUSE).await;
        assert!(shown.shows(&second));
    }
}
