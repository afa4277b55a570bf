//! Whether a log is what clients were told.

use std::collections::BTreeMap;

use packageserver::store::ResourceVersion;

use super::super::linearizable::{Appended, Call, Slot, Value, What, Write};
use super::super::model::Event;
use super::{History, value};

impl History {
    /// Checks that the log holds what was done, perhaps what may have been done, and nothing else; and that states are
    /// those of the log.
    pub fn explain_log(&self, calls: &[Call], log: &[Event]) -> Result<(), String> {
        let mut open: Vec<_> = calls.iter().collect();
        let mut state = BTreeMap::new();
        let log = log.iter().filter_map(|event| Some((self.slot(&event.key)?, event)));
        let mut states = vec![(self.start.revision(), state.clone())];
        let log: Vec<_> = log.collect();
        for batch in log.chunk_by(|(_, a), (_, b)| a.version.revision() == b.version.revision()) {
            let revision = batch[0].1.version.revision();
            let writes = batch.iter().map(|(slot, event)| {
                let [expects, puts] =
                    [&event.before, &event.after].map(|object| Some(value(object.as_ref()?.head())));
                Write { slot: *slot, expects, puts }
            });
            let writes: Vec<_> = writes.collect();
            // Two deletions of the same are told apart by what was said of them.
            let is_done =
                |call: &&Call| matches!(&call.what, What::Append(_, Appended::Done(at)) if *at == revision);
            let may_be = |call: &&Call| matches!(&call.what, What::Append(wanted, Appended::Unknown) if *wanted == writes);
            let call = open.iter().position(is_done).or_else(|| open.iter().position(may_be));
            let call = call.ok_or_else(|| format!("nobody may have done what revision {revision} did"))?;
            let What::Append(wanted, _) = &open.remove(call).what else { unreachable!("it is an append") };
            if *wanted != writes {
                return Err(format!("revision {revision} is {writes:?}, not {wanted:?}"));
            }
            for (position, (write, (_, event))) in writes.iter().zip(batch).enumerate() {
                if state.get(&write.slot) != write.expects.as_ref()
                    || event.version != ResourceVersion::new(revision, position as u16 + 1)
                {
                    return Err(format!("{event:?} does not follow from {state:?}"));
                }
                match write.puts {
                    Some(value) => state.insert(write.slot, value),
                    None => state.remove(&write.slot),
                };
            }
            states.push((revision, state.clone()));
        }
        for call in open {
            match &call.what {
                What::Append(_, Appended::Done(revision)) => {
                    return Err(format!("revision {revision} is not in the log"));
                }
                What::Read(found, Some(at)) => {
                    let (_, state) = &states[states.partition_point(|(revision, _)| revision <= at) - 1];
                    let is_there = |(slot, found): &(Slot, Option<(Value, ResourceVersion)>)| {
                        state.get(slot).copied() == found.map(|(value, _)| value)
                    };
                    if !found.iter().all(is_there) {
                        return Err(format!("{call:?} is not the state {state:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
