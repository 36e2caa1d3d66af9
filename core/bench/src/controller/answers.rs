//! What the workers answer, and what follows if one does not.

use std::collections::BTreeMap;

use super::{
    Controller, Cut, NOBODY, OnLoss, Output, load,
    stage::{LoadStep, ProbeStep, Stage},
};
use crate::{
    id::WorkerId,
    protocol::{Event, Failure, FailureKind, Response, event::Snapshot},
    result::{Lost, Phase},
};
use omb_machine::time::Instant;

impl Controller {
    pub(super) fn on_response(&mut self, now: Instant, worker: WorkerId, response: Response) {
        if !self.links.answered(worker, response.run, response.number) {
            return;
        }
        let Some(asked) = &mut self.asked else { return };
        let loading = matches!(self.stage, Stage::Loaded(LoadStep::Run(_), _));
        match response.outcome.map(Event::printable).map_err(Failure::printable) {
            Ok(event) => {
                asked.answers.insert(worker, event);
                if response.lease_ended && loading && self.cut.is_none() {
                    let text = format!(
                        "{} stopped its load by itself: it had heard nothing from here for {:?}",
                        self.name(worker),
                        self.settings.lease
                    );
                    return self.lose(now, worker, text, FailureKind::Broken);
                }
            }
            // This process can only have forgotten a command that came while it carried out another.
            Err(failure)
                if failure.kind == FailureKind::Forgotten
                    && !self.stage.is_closing()
                    && !self.settings.names.is_empty() =>
            {
                let text = format!("{}: {}", self.name(worker), failure.message);
                return self.lose(now, worker, text, FailureKind::Broken);
            }
            Err(failure) => {
                if let Some(asked) = &mut self.asked {
                    asked.failed.push((worker, failure));
                }
            }
        }
        self.go_on(now);
    }

    /// Goes on if every worker that is left has answered.
    fn go_on(&mut self, now: Instant) {
        if !self.links.all_answered() {
            return;
        }
        let Some(mut asked) = self.asked.take() else { return };
        let failed = std::mem::take(&mut asked.failed);
        if !failed.is_empty() {
            self.asked = Some(asked);
            let failure = self.sum_up(failed);
            return self.fail(now, failure);
        }
        self.on_answers(now, asked.answers);
    }

    /// What some have reported of their counts is not lost because others failed.
    pub(super) fn keep_counts(&mut self, answers: BTreeMap<WorkerId, Event>) {
        let read = answers.into_iter().filter_map(|(worker, event)| match event {
            Event::Read(snapshot) => Some((worker, *snapshot)),
            _ => None,
        });
        let snapshots: BTreeMap<WorkerId, Snapshot> = read.collect();
        if let Some(load) = self.stage.load_mut().filter(|load| load.has_begun() && !snapshots.is_empty())
            && let Err(failure) = load.read(snapshots)
        {
            self.outputs.push_back(Output::Warning(failure.message));
        }
    }

    /// A worker is lost for good.
    pub(super) fn lose(&mut self, now: Instant, worker: WorkerId, cause: String, kind: FailureKind) {
        if !self.links.lose(worker) {
            return;
        }
        self.outputs.push_back(Output::WorkerLost { worker, cause: cause.clone() });
        let load = self.stage.load_mut();
        let loaded = load.is_some();
        let (read, detected) = load.map(|load| load.lose(now, worker, &self.plan)).unwrap_or_default();
        self.lost.push(Lost { worker, read, detected, cause: cause.clone() });
        let goes_on = loaded && self.settings.on_loss == OnLoss::Continue && self.links.alive_count() > 0;
        if loaded && !goes_on && self.stage.is_ending() && self.cut.is_none() {
            // The way down is the same, and what the others have counted is still to be read.
            self.cut = Some(Cut::Failed(Failure::new(kind, cause.clone())));
        }
        // A run that has failed or was stopped already goes on to its end with the workers that are left.
        let ending = self.cut.is_some() && self.links.alive_count() > 0;
        if goes_on || ending {
            return self.go_on(now);
        }
        if matches!(self.stage, Stage::TearDown(_)) {
            self.outputs.push_back(Output::Warning(format!("while cleaning up: {cause}")));
            return if self.links.alive_count() == 0 { self.finish() } else { self.go_on(now) };
        }
        let alive = self.links.alive_count() > 0;
        if let Some(asked) = &mut self.asked {
            // Its name stands in the cause already.
            asked.failed.push((NOBODY, Failure::new(kind, cause)));
            if alive {
                return self.go_on(now);
            }
            let failed = std::mem::take(&mut asked.failed);
            let failure = self.sum_up(failed);
            return self.fail(now, failure);
        }
        self.fail(now, Failure::new(kind, cause));
    }

    /// The deadline has passed: workers that are silent are not waited for any longer.
    pub(super) fn give_up_silent(&mut self, now: Instant) {
        let Some(what) = self.asked.as_ref().map(|asked| asked.what) else { return };
        let silent = self.links.silent();
        if self.settings.names.is_empty() {
            // This process is as alive as the controller; only its broker can be what it waits for.
            let text = format!("this process did not answer \"{what}\" within its deadline");
            if self.stage.is_closing() {
                self.outputs.push_back(Output::Warning(text));
                return self.finish();
            }
            self.links.forget_all();
            return self.fail(now, Failure::new(FailureKind::Unreachable, text));
        }
        for (worker, trouble) in silent {
            let trouble = trouble.map_or_else(String::new, |trouble| format!(" (last trouble: {trouble})"));
            let text = format!(
                "Timeout waiting for worker response: {} did not answer \"{what}\" in time{trouble}; look into its log, and \
                 whether it reaches the messaging system, or allow more with --call-timeout",
                self.name(worker),
            );
            self.lose(now, worker, text, FailureKind::Unreachable);
        }
    }

    fn on_answers(&mut self, now: Instant, events: BTreeMap<WorkerId, Event>) {
        if self.stop_wanted && !self.stage.is_ending() {
            self.keep_counts(events);
            return self.cut_as_wanted(now);
        }
        let mut snapshots = BTreeMap::new();
        let mut findings = Vec::new();
        let mut misfits = Vec::new();
        for (worker, event) in events {
            match event {
                Event::Prepared { system } => self.system = self.settings.system.clone().unwrap_or(system),
                Event::Read(snapshot) => {
                    snapshots.insert(worker, *snapshot);
                }
                Event::Verified(found) => findings.push(*found),
                Event::Checked(found) => misfits.extend(found.into_iter().map(|failure| (worker, failure))),
                Event::Done => {}
            }
        }
        let read = !snapshots.is_empty();
        if let Some(load) = self.stage.load_mut().filter(|_| read)
            && let Err(failure) = load.read(std::mem::take(&mut snapshots))
        {
            return self.fail(now, failure);
        }
        match &mut self.stage {
            Stage::Prepare => self.check(now),
            Stage::Check => self.on_checked(now, misfits),
            Stage::CreateTopics => self.create_consumers(now),
            Stage::CreateConsumers(_) => self.on_joining(now, &snapshots),
            Stage::CreateProducers(_) => self.on_produced(now),
            Stage::Probe(ProbeStep::Look, _) => self.on_probed(now, &snapshots),
            Stage::Probe(ProbeStep::SetClocks, _) => self.on_clocks_set(now, &snapshots),
            // For the clocks no answer is awaited.
            Stage::Probe(ProbeStep::MeasureClocks { .. }, _) => {}
            Stage::Loaded(step, load) => match step {
                LoadStep::Start => {
                    let phase = load.begin(&self.plan);
                    self.enter_load(LoadStep::Run(phase));
                }
                LoadStep::Run(_) if read => self.on_load(now),
                // A command of the load was carried out.
                LoadStep::Run(_) => {}
                LoadStep::Stop => {
                    *step = LoadStep::ReadStopped;
                    self.ask_read(now);
                }
                LoadStep::ReadStopped => {
                    self.emit_period(Phase::Stop);
                    self.drain(now);
                }
                LoadStep::Drain(drain) if !read => drain.next = now,
                LoadStep::Drain(_) => self.on_drained(now),
                LoadStep::Verify(..) => self.on_verified(now, findings),
            },
            Stage::TearDown(_) => self.go_on_tearing_down(now),
        }
    }

    /// The load has been read: a period is over.
    fn on_load(&mut self, now: Instant) {
        let (phase, subscriptions) = (self.stage.phase(), self.workload_subscriptions());
        self.emit_period(phase);
        let Some(load) = self.stage.load_mut() else { return };
        match load.decide(now, phase, &self.plan, &self.settings, subscriptions) {
            load::Next::Stay => {}
            load::Next::Enter(next) => self.enter_load(LoadStep::Run(next)),
            load::Next::Ask(next, command) => {
                if next != phase {
                    self.enter_load(LoadStep::Run(next));
                }
                self.ask_all(now, self.settings.call_within, &command);
            }
            load::Next::Stop => self.stop_load(now),
            load::Next::Fail(failure) => self.fail(now, failure),
        }
    }

    /// The load takes a step that is a phase of its own.
    pub(super) fn enter_load(&mut self, next: LoadStep) {
        if let Stage::Loaded(step, _) = &mut self.stage {
            *step = next;
            self.outputs.push_back(Output::Entered(self.stage.phase()));
        }
    }

    pub(super) fn emit_period(&mut self, phase: Phase) {
        let subscriptions = self.workload_subscriptions();
        if let Some(period) = self.stage.load_mut().and_then(|load| load.close_period(phase, subscriptions)) {
            self.outputs.push_back(Output::Period(Box::new(period)));
        }
    }
}
