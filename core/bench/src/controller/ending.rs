//! The way down, and what cuts a run short.

use super::{
    Controller, Cut, End, Output,
    load::{self, Load},
    stage::{Drain, LoadStep, Stage, TearDown, TearDownStep},
    verify,
};
use crate::{
    id::WorkerId,
    protocol::{Command, Failure, FailureKind, event::Findings},
    result::{Drained, Phase, Verdict, soundness},
};
use omb_machine::time::Instant;

impl Controller {
    /// Stops the load.
    pub(super) fn stop_load(&mut self, now: Instant) {
        self.enter_load(LoadStep::Stop);
        let within = self.settings.stop_within;
        self.ask_all(now, within + self.settings.call_within, &Command::StopLoad { within });
    }

    pub(super) fn drain(&mut self, now: Instant) {
        self.enter_load(LoadStep::Drain(Drain {
            by_silence: false,
            deadline: now + self.settings.drain_within,
            progress_at: now,
            distinct: 0,
            next: now,
        }));
        // Consumers that were paused when the run was cut short could not receive what is left.
        self.ask_all(now, self.settings.call_within, &Command::ResumeConsumers);
    }

    pub(super) fn on_drained(&mut self, now: Instant) {
        let subscriptions = self.workload_subscriptions();
        let Stage::Loaded(LoadStep::Drain(drain), load) = &mut self.stage else { return };
        let distinct = load.totals().seen.values().map(|seen| seen.distinct).fold(0, u64::saturating_add);
        if distinct > drain.distinct {
            drain.distinct = distinct;
            drain.progress_at = now;
        }
        let ended = if subscriptions == 0 {
            Drained::NotAwaited
        } else if load.unread(subscriptions) == 0 && !drain.by_silence && !load.is_torn() {
            Drained::Completely
        } else if now.since(drain.progress_at) >= self.settings.quiet_after {
            Drained::Quiet
        } else if self.stop_wanted {
            // What was measured is whole, but what happened to the rest is unknown.
            self.cut.get_or_insert(Cut::Wanted);
            Drained::TooLong
        } else if now >= drain.deadline {
            Drained::TooLong
        } else {
            drain.next = now + self.settings.look_again;
            return;
        };
        let verify = LoadStep::Verify(*drain, ended);
        self.enter_load(verify);
        self.ask_all(now, self.settings.call_within, &Command::Verify);
    }

    pub(super) fn on_verified(&mut self, now: Instant, findings: Vec<Findings>) {
        let Stage::Loaded(LoadStep::Verify(drain, drained), load) = &self.stage else { return };
        let (drain, drained) = (*drain, *drained);
        let lost: Vec<WorkerId> = self.lost.iter().map(|lost| lost.worker).collect();
        let verdict = Verdict { drained, ..verify::judge(&self.plan, &load.totals().seen, findings, &lost) };
        if verdict.missing() > 0 && verdict.drained == Drained::Completely {
            // What was compared is out of date from here on; should the run fail now, nothing has been checked.
            let next = now + self.settings.look_again;
            return self.enter_load(LoadStep::Drain(Drain { by_silence: true, progress_at: now, next, ..drain }));
        }
        self.end(now, Some(verdict));
    }

    /// Ends the run: hands the result out, if there is a load and a verdict to report, and then cleans up.
    pub(super) fn end(&mut self, now: Instant, verdict: Option<Verdict>) {
        // There may be topics of this run from the order to create them on, whatever its outcome.
        let topics = !matches!(self.stage, Stage::Prepare | Stage::Check);
        self.end_with(now, topics, verdict);
    }

    /// As [`Self::end`], where it is known whether there may be `topics` to delete.
    fn end_with(&mut self, now: Instant, topics: bool, verdict: Option<Verdict>) {
        let step = match (topics, self.links.alive_count()) {
            (false, _) => TearDownStep::Close,
            (true, 0 | 1) => TearDownStep::Delete,
            (true, _) => TearDownStep::CloseClients,
        };
        let former = std::mem::replace(&mut self.stage, Stage::TearDown(TearDown { step, reported: None }));
        if let (Stage::Loaded(_, load), Some(verdict)) = (former, verdict) {
            self.report(now, *load, verdict);
        }
        self.outputs.push_back(Output::Entered(Phase::TearDown));
        self.tear_down(now, step);
    }

    fn report(&mut self, now: Instant, load: Load, verdict: Verdict) {
        let partial = match &self.cut {
            None => None,
            Some(Cut::Wanted) => Some("interrupted by the user".to_owned()),
            Some(Cut::Failed(failure)) => Some(failure.message.clone()),
        };
        let known = load::Known {
            system: &self.system,
            verdict,
            partial,
            lost: &self.lost,
            clocks: self.plan_workers().map(|worker| self.links.offsets(worker)).collect(),
        };
        let report = load.into_report(now, &self.plan, &self.settings, known);
        if let Stage::TearDown(TearDown { reported, .. }) = &mut self.stage {
            *reported = Some(soundness::unsound(&report));
        }
        self.outputs.push_back(Output::Report(Box::new(report)));
    }

    /// The last command of the tear-down was carried out, or could not be: the next one follows.
    pub(super) fn go_on_tearing_down(&mut self, now: Instant) {
        let Stage::TearDown(tear_down) = &self.stage else { return };
        match tear_down.step {
            TearDownStep::CloseClients => self.tear_down(now, TearDownStep::Delete),
            TearDownStep::Delete => self.tear_down(now, TearDownStep::Close),
            TearDownStep::Close => self.finish(),
        }
    }

    fn tear_down(&mut self, now: Instant, next: TearDownStep) {
        if self.links.alive_count() == 0 {
            return self.finish();
        }
        let Stage::TearDown(TearDown { step, .. }) = &mut self.stage else { return };
        *step = next;
        let within = self.settings.call_within;
        match next {
            TearDownStep::CloseClients => {
                let command = Command::DeleteTopics { within, topics: Vec::new(), groups: Vec::new() };
                self.ask_all(now, within * 2, &command);
            }
            TearDownStep::Delete => {
                let command = Command::DeleteTopics {
                    within,
                    topics: self.plan.topics.iter().map(|topic| topic.name.clone()).collect(),
                    groups: self.plan.subscriptions.iter().map(|subscription| subscription.name.clone()).collect(),
                };
                self.ask_first(now, within * 2, &command);
            }
            TearDownStep::Close => {
                self.clocks.next = None;
                self.ask_all(now, within, &Command::Close);
                // Workers that were given up may live all the same; they are not waited for.
                let lost: Vec<WorkerId> = self.lost.iter().map(|lost| lost.worker).collect();
                for worker in lost {
                    let request = self.links.ask(now, worker, Command::Close);
                    self.send(worker, request);
                }
            }
        }
    }

    /// The end.
    pub(super) fn finish(&mut self) {
        self.asked = None;
        self.clocks.next = None;
        self.links.forget_all();
        let reported = if let Stage::TearDown(tear_down) = &mut self.stage { tear_down.reported.take() } else { None };
        let end = match (self.cut.take(), reported) {
            (Some(Cut::Failed(failure)), _) => End::Failed(failure),
            (Some(Cut::Wanted), reported) => End::Interrupted(reported.is_some()),
            (None, Some(unsound)) if !unsound.is_empty() => End::Unsound(unsound),
            (None, _) => End::Sound,
        };
        self.outputs.push_back(Output::Finished(end));
    }

    // What cuts a run short.

    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        if let Some(asked) = self.asked.take() {
            self.keep_counts(asked.answers);
        }
        if matches!(self.stage, Stage::TearDown(_)) {
            // The result is out; what cannot be cleaned up is reported, and the next step taken.
            self.outputs.push_back(Output::Warning(format!("while cleaning up: {failure}")));
            return self.go_on_tearing_down(now);
        }
        // A broker that is not there to create topics is not there to delete them; asking would only make the user wait.
        let gone = failure.kind == FailureKind::Unreachable && matches!(self.stage, Stage::CreateTopics);
        if self.cut.is_none() {
            self.cut = Some(Cut::Failed(failure));
        } else {
            self.outputs.push_back(Output::Warning(failure.message));
        }
        if gone {
            return self.end_with(now, false, None);
        }
        let drained = match &self.stage {
            // Where the load was to begin, some may have begun.
            Stage::Loaded(LoadStep::Start | LoadStep::Run(_), _) if self.links.alive_count() > 0 => {
                return self.stop_load(now);
            }
            Stage::Loaded(LoadStep::Verify(_, drained), _) => *drained,
            _ => Drained::default(),
        };
        self.end(now, Some(Verdict { drained, ..Verdict::default() }));
    }

    /// Ends the run because that was asked for, once no answer is awaited.
    pub(super) fn cut_as_wanted(&mut self, now: Instant) {
        if self.stage.is_ending() {
            return;
        }
        self.cut.get_or_insert(Cut::Wanted);
        if matches!(self.stage, Stage::Loaded(LoadStep::Run(_), _)) {
            self.stop_load(now);
        } else {
            // A load that has been ordered and has not begun leaves nothing to report.
            self.end(now, None);
        }
    }
}
