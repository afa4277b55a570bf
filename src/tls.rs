//! The one choice of cryptography for every connection, in and out.

/// Makes ring the process's provider of cryptography. Calling it again does nothing.
pub fn install_crypto() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
