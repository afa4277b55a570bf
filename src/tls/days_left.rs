//! A metric that says how long the certificate that is shown is still good for.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};
use time::OffsetDateTime;

use super::server::ServingCertificate;

/// The name of the metric.
const DAYS_LEFT: &str = "packageserver_serving_certificate_days_left";

const SECONDS_A_DAY: f64 = 24.0 * 60.0 * 60.0;

/// Works out at each scrape how many days the certificate that is shown is still good for.
struct DaysLeft {
    gauge: Gauge,
    certificate: Arc<ServingCertificate>,
}

impl Collector for DaysLeft {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(expires) = self.certificate.expires() else { return Vec::new() };
        self.gauge.set((expires - OffsetDateTime::now_utc()).as_seconds_f64() / SECONDS_A_DAY);
        self.gauge.collect()
    }
}

/// Adds the metric for a certificate.
///
/// # Errors
///
/// When there is one of the name already.
pub fn register(registry: &Registry, certificate: Arc<ServingCertificate>) -> Result<(), prometheus::Error> {
    let gauge = Gauge::new(DAYS_LEFT, "Days that the certificate this server shows is still good for.")?;
    registry.register(Box::new(DaysLeft { gauge, certificate }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::{Authority, Validity};

    #[test]
    fn the_days_that_are_left_are_those_of_the_certificate_that_is_shown() {
        let (authority, _) = Authority::generate("test", Validity::days(1)).unwrap();
        let shown = Arc::new(ServingCertificate::default());
        let registry = Registry::new();
        register(&registry, Arc::clone(&shown)).unwrap();
        assert!(registry.gather().is_empty());
        for days in [9, 90] {
            shown
                .set(&authority.server(&["localhost".to_owned()], &[], Validity::days(days)).unwrap())
                .unwrap();
            let value = registry.gather()[0].get_metric()[0].get_gauge().get_value();
            assert!((value - f64::from(days)).abs() < 0.1, "{value}");
        }
    }
}
