//! What is broken in a case, and what is expected of the proofs.

use holdfast_core::mutants::Mutant;

/// What has to become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A proof notices.
    Caught,
    /// Nothing notices: another rule, or another part, keeps the harm away. Shown by the case that breaks both.
    Masked,
    /// Nothing notices, because nothing is broken.
    Sound,
}

/// Some rules left out at once; most often one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is left out.
    pub mutants: Vec<Mutant>,
    /// What has to become of it.
    pub expected: Expected,
}

/// Rules behind which another one stands. Alone none of them does harm that a proof could see; both together do.
const MASKED: &[[Mutant; 2]] = &[
    // The loss of a tail is durable twice: as a mark where the files are opened, as the non-voter's flag in the replica.
    [Mutant::ForgetTailLoss, Mutant::NoteTailLossInMemory],
];

/// Cases that directed schedules decide within a second each.
const QUICK: &[Mutant] = &[
    Mutant::FollowerAcksBeforeFlush,
    Mutant::CommitAlone,
    Mutant::CountOldEpochs,
    Mutant::ElectByLength,
    Mutant::RecoverFromMinority,
    Mutant::ObeyLateDiverge,
    Mutant::AcknowledgeDuplicate,
    Mutant::VoteAfterTailLoss,
    Mutant::TakeAnyCopy,
];

impl Case {
    /// The build without any mutant.
    pub fn sound() -> Case {
        Case { mutants: Vec::new(), expected: Expected::Sound }
    }

    /// The names of its mutants.
    pub fn name(&self) -> String {
        let names: Vec<String> = self.mutants.iter().map(|mutant| format!("{mutant:?}")).collect();
        if names.is_empty() { "(nothing)".to_owned() } else { names.join("+") }
    }

    /// The rules that are not kept.
    pub fn rules(&self) -> String {
        let rules: Vec<&str> = self.mutants.iter().map(|mutant| mutant.rule()).collect();
        rules.join("+")
    }

    /// What happens instead.
    pub fn description(&self) -> String {
        let descriptions: Vec<&str> = self.mutants.iter().map(|mutant| mutant.description()).collect();
        if descriptions.is_empty() { "Every rule is kept.".to_owned() } else { descriptions.join(" ") }
    }
}

fn alone(&mutant: &Mutant) -> Case {
    let masked = MASKED.iter().flatten().any(|&other| other == mutant);
    let expected = if masked { Expected::Masked } else { Expected::Caught };
    Case { mutants: vec![mutant], expected }
}

/// The sound build, every mutant alone, and those together that mask each other.
pub fn cases() -> Vec<Case> {
    let both = |pair: &[Mutant; 2]| Case { mutants: pair.to_vec(), expected: Expected::Caught };
    let sound = std::iter::once(Case::sound());
    sound.chain(Mutant::ALL.iter().map(alone)).chain(MASKED.iter().map(both)).collect()
}

/// The sound build and a few mutants that need no search.
pub fn quick_cases() -> Vec<Case> {
    std::iter::once(Case::sound()).chain(QUICK.iter().map(alone)).collect()
}
