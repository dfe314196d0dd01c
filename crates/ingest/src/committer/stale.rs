//! Which jobs may go on though definitions changed since their check: those whose own did
//! not.

use super::{Job, Reply, answer};
use crate::registry::Snapshot;

/// The jobs that `definitions` have nothing against: checked against these or later ones,
/// or by those that still rule here. The latter are as if checked against these. All
/// others are answered: to be checked again.
pub(super) fn renewed(jobs: Vec<Job>, definitions: &Snapshot) -> Vec<Job> {
    let revision = definitions.revision();
    let (mut fresh, changed): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|job| job.revision >= revision || is_unchanged(job, definitions));
    for job in &mut fresh {
        job.revision = job.revision.max(revision);
    }
    send_back(changed);
    fresh
}

/// The jobs that were checked against definitions of at least this revision. All others
/// are answered: to be checked again.
pub(super) fn refuse_stale(jobs: Vec<Job>, minimum_revision: i64) -> Vec<Job> {
    let (fresh, stale) = jobs.into_iter().partition(|job| job.revision >= minimum_revision);
    send_back(stale);
    fresh
}

/// Each put has an etag of its own: the same one means the same rules.
fn is_unchanged(job: &Job, definitions: &Snapshot) -> bool {
    job.candidates.iter().all(|candidate| {
        let applied = &candidate.definition;
        let ruling = definitions.find(&candidate.organisation, applied.draft.path.as_str());
        ruling.is_some_and(|ruling| ruling.etag == applied.etag)
    })
}

fn send_back(jobs: Vec<Job>) {
    for job in jobs {
        answer(job, Reply::Stale);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use sluice_service::trace::Origin;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        check::Candidate,
        committer::tests::candidate,
        definition::{Definition, RawDraft},
    };

    /// Organisation, path and etag.
    type Rules = (&'static str, &'static str, &'static str);

    fn definition((organisation, path, etag): Rules) -> Definition {
        let raw = RawDraft { path: path.into(), ..RawDraft::default() };
        let mut draft = raw.check(Duration::from_secs(1)).unwrap();
        draft.organisation = (!organisation.is_empty()).then(|| organisation.parse().unwrap());
        Definition::of(etag, draft)
    }

    fn snapshot(revision: i64, rules: &[Rules]) -> Snapshot {
        Snapshot::of(revision, rules.iter().copied().map(definition))
    }

    fn job(applied: &[Rules]) -> (Job, oneshot::Receiver<Reply>) {
        let by = |applied: &Rules| {
            let definition = Arc::new(definition(*applied));
            Candidate { definition, ..candidate(1) }
        };
        let (reply, answer) = oneshot::channel();
        let candidates = applied.iter().map(by).collect();
        (Job { candidates, revision: 7, reply, origin: Origin::default() }, answer)
    }

    /// What becomes of a job of `acme` that was checked by these at revision 7: the revision
    /// it goes on with, unless it is sent back.
    fn goes_on(applied: &[Rules], revision: i64, now: &[Rules]) -> Option<i64> {
        let (job, mut answer) = job(applied);
        let mut fresh = renewed(vec![job], &snapshot(revision, now));
        assert_eq!(matches!(answer.try_recv(), Ok(Reply::Stale)), fresh.is_empty());
        fresh.pop().map(|job| job.revision)
    }

    const OWN: Rules = ("acme", "p", "1");
    const SYSTEM_WIDE: Rules = ("", "q", "2");

    #[test]
    fn a_job_goes_on_where_what_it_was_checked_by_still_rules() {
        let now = [OWN, SYSTEM_WIDE, ("acme", "other", "3"), ("globex", "q", "4"), ("", "p", "5")];
        assert_eq!(goes_on(&[OWN, SYSTEM_WIDE], 9, &now), Some(9));
    }

    #[test]
    fn a_job_is_sent_back_where_one_of_its_definitions_changed() {
        assert_eq!(goes_on(&[OWN, SYSTEM_WIDE], 8, &[OWN, ("", "q", "3")]), None);
    }

    #[test]
    fn a_job_is_sent_back_where_its_definition_is_gone() {
        assert_eq!(goes_on(&[OWN], 8, &[]), None);
    }

    #[test]
    fn a_job_is_sent_back_where_an_own_definition_comes_before_the_system_wide_one() {
        assert_eq!(goes_on(&[SYSTEM_WIDE], 8, &[SYSTEM_WIDE, ("acme", "q", "3")]), None);
    }

    #[test]
    fn a_job_is_sent_back_where_the_system_wide_definition_follows_an_own_one() {
        assert_eq!(goes_on(&[OWN], 8, &[("", "p", "3")]), None);
    }

    #[test]
    fn a_job_that_was_checked_against_as_new_definitions_goes_on_as_it_is() {
        for revision in [6, 7] {
            assert_eq!(goes_on(&[OWN], revision, &[]), Some(7));
        }
    }

    #[test]
    fn each_job_is_judged_alone() {
        let jobs = [OWN, ("acme", "p", "0"), OWN].map(|applied| job(&[applied]));
        let (jobs, mut answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        assert_eq!(renewed(jobs, &snapshot(8, &[OWN])).len(), 2);
        let told = answers.iter_mut().map(|answer| matches!(answer.try_recv(), Ok(Reply::Stale)));
        assert_eq!(told.collect::<Vec<_>>(), [false, true, false]);
    }
}
