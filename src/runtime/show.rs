//! Shows how far long work is: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::SourceReference;
use crate::pipeline::progress::Progress;

/// Time between two looks at the counters, on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// Time between two log lines.
const LOG: Duration = Duration::from_secs(10);

/// Something that is shown while it goes on.
pub(super) struct Show {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Show {
    /// Begins to show an ingest.
    pub(super) fn start(source: &SourceReference, progress: &Progress) -> Self {
        let stop = CancellationToken::new();
        let (source, progress, stopped) = (source.to_string(), progress.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let show = async {
                if std::io::stderr().is_terminal() {
                    draw(&source, &progress).await;
                } else {
                    log(&source, &progress).await;
                }
            };
            stopped.run_until_cancelled(show).await;
        });
        Show { stop, task }
    }

    /// Ends it, and takes the bar away.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn draw(source: &str, progress: &Progress) {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    // Whatever way the show ends, the bar does not stay.
    let bar = ClearOnDrop(bar);
    bar.0.set_message(source.to_owned());
    loop {
        if progress.total_bytes() > 0 {
            bar.0.set_length(progress.total_bytes());
        }
        bar.0.set_position(progress.bytes());
        tokio::time::sleep(REDRAW).await;
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn log(source: &str, progress: &Progress) {
    loop {
        tokio::time::sleep(LOG).await;
        tracing::info!(
            source,
            bytes = progress.bytes(),
            total_bytes = progress.total_bytes(),
            metas = progress.metas(),
            events = progress.events(),
            "ingesting"
        );
    }
}
