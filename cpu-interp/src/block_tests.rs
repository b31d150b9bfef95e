//! The room for operations: what dropped blocks leave is used again, and blocks that were translated
//! stay when it is scarce.

use super::*;
use crate::decode::{Source, decode};
use crate::testing::TestMachine;

/// A block of so many instructions whose operations say that they are the `tag`th block's.
fn insert(cache: &mut BlockCache, instructions: usize, tag: usize) -> u32 {
    // add eax, tag
    let code = [&[0x05_u8][..], &(tag as u32).to_le_bytes()].concat().repeat(instructions);
    let model = TestMachine::model();
    let (vendor, features) = (model.vendor, model.features);
    let source = Source { bytes: &code, start: 0, rip: 0, limit: u64::MAX, vendor, features };
    let mode = Mode(Mode::LONG);
    let decoded = decode(&source, mode).unwrap();
    let key = Key { offset: tag << 12, rip: 0, mode, limit: u32::MAX, base: 0 };
    assert!(cache.has_room(decoded.ops.len()));
    cache.insert(decoded.to_block(key, None), &decoded.ops)
}

fn tags(cache: &BlockCache, index: u32) -> Vec<u64> {
    cache.decoded_ops(cache.block(index).unwrap()).iter().map(|op| op.imm).collect()
}

#[test]
fn what_dropped_blocks_leave_is_used_again() {
    let mut cache = BlockCache::new();
    for tag in 1..1000 {
        let index = insert(&mut cache, 7, tag);
        assert!(cache.replace_ops(index, &[]));
        cache.drop_block(index);
    }
    let used = cache.ops.len();
    assert!(used <= 32, "{used} operations for two blocks of seven instructions");
    cache.drop_block(999);
    assert_eq!(cache.ops.len(), used);
}

#[test]
fn translated_blocks_stay_when_room_is_scarce() {
    let mut cache = BlockCache::new();
    let (mut plain, mut translated) = (Vec::new(), Vec::new());
    for tag in 1.. {
        if !cache.has_room(33) {
            break;
        }
        let index = insert(&mut cache, 30, tag);
        match tag % 3 {
            0 if cache.replace_ops(index, &[]) => translated.push((index, tag)),
            _ => plain.push(index),
        }
    }
    assert!(plain.len() > 1000 && translated.len() > 1000);
    assert!(cache.make_room());
    let Dropped::Some(mut dropped) = cache.take_dropped() else { panic!("all were dropped") };
    dropped.sort_unstable();
    assert_eq!(dropped, plain);
    // Shorter ones lie where longer ones were, and not where others still are.
    let full = cache.ops.len();
    let after: Vec<_> = (0..1000).map(|n| (insert(&mut cache, 9, 1 << 20 | n), n)).collect();
    assert!(cache.ops.len() <= full + 33);
    for (index, tag) in translated {
        assert!(tags(&cache, index).iter().filter(|&&imm| imm == tag as u64).count() >= 29);
    }
    for (index, n) in after {
        assert!(tags(&cache, index).contains(&(1 << 20 | n as u64)));
    }
}

#[test]
fn all_blocks_go_where_most_are_translated() {
    let mut cache = BlockCache::new();
    for tag in 1.. {
        if !cache.has_room(66) {
            break;
        }
        let index = insert(&mut cache, 30, tag);
        if tag % 8 != 0 {
            cache.replace_ops(index, &[]);
        }
    }
    assert!(!cache.make_room());
    assert_eq!(cache.take_dropped(), Dropped::None);
    cache.clear();
    assert_eq!(cache.take_dropped(), Dropped::All);
    assert!(cache.has_room(MAX_OPS));
}
