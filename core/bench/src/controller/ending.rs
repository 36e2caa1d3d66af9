//! The way down, and what cuts a run short.

use super::{
    Controller, Cut, End, Output,
    load::{self, Load},
    stage::{Drain, Stage, Stopping, TearDown, TearDownStep},
    verify,
};
use crate::{
    id::WorkerId,
    protocol::{Command, Failure, FailureKind, event::Findings},
    result::{Drained, Phase, Verdict, soundness},
};
use omb_machine::time::Instant;

impl Controller {
    /// The load has come to its end.
    pub(super) fn end_load(&mut self, now: Instant) {
        if let Some(load) = self.take_load() {
            self.stop_load(now, load);
        }
    }

    /// Stops a load.
    fn stop_load(&mut self, now: Instant, load: Box<Load>) {
        self.enter(Stage::Stop(Stopping::Producers, load));
        let within = self.settings.stop_within;
        self.ask_all(now, within + self.settings.call_within, &Command::StopLoad { within });
    }

    /// The producers have stopped, or their counts have been read.
    pub(super) fn on_stopped(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Stop(waits @ Stopping::Producers, _) => {
                *waits = Stopping::Counts;
                self.ask_read(now);
            }
            Stage::Stop(Stopping::Counts, _) => {
                self.emit_period(Phase::Stop);
                self.drain(now);
            }
            _ => {}
        }
    }

    fn drain(&mut self, now: Instant) {
        let Some(load) = self.take_load() else { return };
        let drain = Drain {
            by_silence: false,
            deadline: now + self.settings.drain_within,
            progress_at: now,
            distinct: 0,
            next: now,
        };
        self.enter(Stage::Drain(drain, load));
        // Consumers that were paused when the run was cut short could not receive what is left.
        self.ask_all(now, self.settings.call_within, &Command::ResumeConsumers);
    }

    pub(super) fn on_drained(&mut self, now: Instant) {
        let subscriptions = self.workload_subscriptions();
        let Stage::Drain(drain, load) = &mut self.stage else { return };
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
        if let Stage::Drain(drain, load) = std::mem::replace(&mut self.stage, Stage::Prepare) {
            self.enter(Stage::Verify(drain, ended, load));
        }
        self.ask_all(now, self.settings.call_within, &Command::Verify);
    }

    pub(super) fn on_verified(&mut self, now: Instant, findings: Vec<Findings>) {
        let Stage::Verify(_, drained, load) = &self.stage else { return };
        let lost: Vec<WorkerId> = self.lost.iter().map(|lost| lost.worker).collect();
        let verdict = Verdict { drained: *drained, ..verify::judge(&self.plan, &load.totals().seen, findings, &lost) };
        if verdict.missing() > 0 && verdict.drained == Drained::Completely {
            // What was compared is out of date from here on; should the run fail now, nothing has been checked.
            if let Stage::Verify(mut drain, _, load) = std::mem::replace(&mut self.stage, Stage::Prepare) {
                drain.by_silence = true;
                drain.progress_at = now;
                drain.next = now + self.settings.look_again;
                self.enter(Stage::Drain(drain, load));
            }
            return;
        }
        self.report_and_tear_down(now, verdict);
    }

    /// Hands the result out, if there is a load to report on, and then cleans up.
    fn report_and_tear_down(&mut self, now: Instant, verdict: Verdict) {
        let partial = match &self.cut {
            None => None,
            Some(Cut::Wanted) => Some("interrupted by the user".to_owned()),
            Some(Cut::Failed(failure)) => Some(failure.message.clone()),
        };
        let topics_exist = self.topics_may_exist();
        let mut unsound = None;
        if let Some(load) = self.take_load() {
            let known = load::Known {
                system: &self.system,
                verdict,
                partial,
                lost: &self.lost,
                clocks: self.plan_workers().map(|worker| self.links.offsets(worker)).collect(),
            };
            let report = load.into_report(now, &self.plan, &self.settings, known);
            unsound = Some(soundness::unsound(&report));
            self.outputs.push_back(Output::Report(Box::new(report)));
        }
        self.begin_tear_down(now, topics_exist, unsound);
    }

    /// Whether there may be topics of this run: from the order to create them on, whatever its outcome.
    fn topics_may_exist(&self) -> bool {
        !matches!(self.stage, Stage::Prepare | Stage::Check)
    }

    /// The load, which goes from its stage to the next.
    fn take_load(&mut self) -> Option<Box<Load>> {
        self.stage.load()?;
        std::mem::replace(&mut self.stage, Stage::Prepare).into_load()
    }

    /// Without any topic there is nothing to delete. `unsound` are the reasons that the report gives, if there was one.
    pub(super) fn begin_tear_down(&mut self, now: Instant, topics_exist: bool, unsound: Option<Vec<String>>) {
        let step = match (topics_exist, self.links.alive_count()) {
            (false, _) => TearDownStep::Close,
            (true, 0 | 1) => TearDownStep::Delete,
            (true, _) => TearDownStep::CloseClients,
        };
        let reported = unsound.is_some();
        self.enter(Stage::TearDown(TearDown { step, reported, unsound: unsound.unwrap_or_default() }));
        self.tear_down(now, step);
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
        let (reported, unsound) = match &mut self.stage {
            Stage::TearDown(TearDown { reported, unsound, .. }) => (*reported, std::mem::take(unsound)),
            _ => (false, Vec::new()),
        };
        let end = match self.cut.take() {
            Some(Cut::Failed(failure)) => End::Failed(failure),
            Some(Cut::Wanted) => End::Interrupted(reported),
            None if unsound.is_empty() => End::Sound,
            None => End::Unsound(unsound),
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
            return self.begin_tear_down(now, false, None);
        }
        // Where the load was to begin, some may have begun.
        if !self.stage.is_ending() && self.links.alive_count() > 0 && self.stage.load().is_some() {
            return self.end_load(now);
        }
        let drained = if let Stage::Verify(_, drained, _) = &self.stage { *drained } else { Drained::default() };
        self.report_and_tear_down(now, Verdict { drained, ..Verdict::default() });
    }

    /// Ends the run because that was asked for, once no answer is awaited.
    pub(super) fn cut_as_wanted(&mut self, now: Instant) {
        if self.stage.is_ending() {
            return;
        }
        self.cut.get_or_insert(Cut::Wanted);
        if matches!(self.stage, Stage::Load(..)) {
            self.end_load(now);
        } else {
            // A load that has been ordered and has not begun leaves nothing to report.
            self.begin_tear_down(now, self.topics_may_exist(), None);
        }
    }
}
