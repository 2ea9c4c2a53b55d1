//! Symmetries of transformers, alone, all at once, and after what else a thief does.

use crate::attacks::Attack;
use crate::model::Weights;
use crate::prune::prune;
use crate::quantise::{Group, to_integers};
use crate::symmetry::{
    Anatomy, Family, Mixing, add_neurons, everything, flip_hidden, fold_gains, mix_heads, permute_heads,
    permute_hidden, permute_neurons, rotate_hidden, scale_gains, scale_neurons,
};
use crate::tuning::GENTLE;

const SEED: u64 = 5;

type Scramble = fn(&Weights, &Anatomy) -> Weights;

/// Those that the family of this model has.
pub(crate) fn symmetries(anatomy: &Anatomy) -> Vec<Attack> {
    let all: [(&str, Scramble); 7] = [
        ("neurons permuted", |weights, anatomy| permute_neurons(weights, anatomy, SEED)),
        ("neurons scaled", |weights, anatomy| scale_neurons(weights, anatomy, SEED)),
        ("40 % of neurons added", |weights, anatomy| add_neurons(weights, anatomy, 0.1, SEED)),
        ("heads permuted", |weights, anatomy| permute_heads(weights, anatomy, SEED)),
        ("heads mixed", |weights, anatomy| mix_heads(weights, anatomy, Mixing::Linear, SEED)),
        ("hidden dimensions permuted", |weights, anatomy| permute_hidden(weights, anatomy, SEED)),
        ("hidden dimensions rotated", |weights, anatomy| rotate_hidden(weights, anatomy, SEED)),
    ];
    let gains: [(&str, Scramble); 2] =
        [("gains folded", fold_gains), ("gains scaled", |weights, anatomy| scale_gains(weights, anatomy, SEED))];
    let signs: [(&str, Scramble); 1] =
        [("signs of hidden dimensions flipped", |weights, anatomy| flip_hidden(weights, anatomy, SEED))];
    let has_gains = anatomy.family != Family::Bert;
    let has_signs = anatomy.family == Family::Llama;
    let mut found: Vec<(&str, Scramble)> = all.into();
    found.extend(gains.into_iter().filter(|_| has_gains));
    found.extend(signs.into_iter().filter(|_| has_signs));
    found.push(("all symmetries at once", |weights, anatomy| everything(weights, anatomy, SEED)));
    let attack = |(name, scramble): (&str, Scramble)| {
        let anatomy = anatomy.clone();
        Attack::new(name, move |weights| scramble(weights, &anatomy))
    };
    found.into_iter().map(attack).collect()
}

/// Scrambled, pruned by half and quantised to 4 bits, with and without a fine-tune before.
pub(crate) fn chains(anatomy: &Anatomy) -> Vec<Attack> {
    let scrambles: [(&str, Scramble); 2] = [
        ("permuted", |weights, anatomy| permute_hidden(&permute_neurons(weights, anatomy, SEED), anatomy, SEED + 1)),
        ("all symmetries", |weights, anatomy| everything(weights, anatomy, SEED)),
    ];
    let chain = |(name, scramble): (&'static str, Scramble)| {
        let ends = |anatomy: &Anatomy| {
            let anatomy = anatomy.clone();
            move |weights: &Weights| to_integers(&prune(&scramble(weights, &anatomy), 0.5), 4, Group::Of(32))
        };
        let (direct, tuned) = (ends(anatomy), ends(anatomy));
        [
            Attack::new(format!("{name}, prune 50 %, int4 g32"), direct),
            Attack::on(format!("fine-tuned, {name}, prune 50 %, int4 g32"), move |lab| {
                Ok(GENTLE.of(lab)?.map(|weights| tuned(&weights)))
            })
            .slow(),
        ]
    };
    scrambles.into_iter().flat_map(chain).collect()
}
