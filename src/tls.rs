//! Keys and certificates: the one choice of cryptography, an authority of one's own, and how the server speaks TLS.

pub mod authority;
pub mod days_left;
pub mod expiry;
pub mod files;
pub mod server;

/// Makes ring the process's provider of cryptography. Calling it again does nothing.
pub fn install_crypto() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
