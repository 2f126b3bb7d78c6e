use proptest::prelude::*;

use super::*;

/// An access: whether it stores, its address and size.
type Access = (bool, u64, u8);

/// Accesses of 2 to 16 bytes within 24; their addresses are even, so that a place has at most four stores, as many as a
/// set has ways, that none has overwritten.
fn any_access() -> impl Strategy<Value = Access> {
    let size = prop::sample::select(vec![2_u8, 2, 4, 4, 4, 8, 8, 16]);
    (any::<bool>(), 0..12_u64, size)
        .prop_map(|(stores, half, size)| (stores, 0x1000 + half * 2, size))
}

/// The latest of `stores` that a load has bytes of.
fn latest(stores: &[(u64, u8)], address: u64, size: u8) -> Source {
    let overlaps = |&(from, own): &(u64, u8)| {
        from < address + u64::from(size) && address < from + u64::from(own)
    };
    let Some(at) = stores.iter().rposition(overlaps) else {
        return Source::Cache;
    };
    let (from, own) = stores[at];
    let number = at as u64 + 1;
    let whole = from <= address && address + u64::from(size) <= from + u64::from(own);
    match whole {
        true => Source::Store(number),
        false => Source::Blocked(number),
    }
}

proptest! {
    /// A load finds the latest store of any of its bytes, as if all stores were remembered; what it reads is what that
    /// wrote, or what the same load found before if nothing was stored there since.
    #[test]
    fn a_load_finds_the_latest_store_of_its_bytes(
        accesses in prop::collection::vec(any_access(), 1..60),
    ) {
        let mut contents = Contents::new();
        let mut stores = Vec::new();
        let mut values = Vec::new();
        for (at, &(is_store, address, size)) in accesses.iter().enumerate() {
            if is_store {
                let value = contents.fresh() & LOW[usize::from(size.min(8))];
                stores.push((address, size));
                values.push(value);
                contents.store(address, size, value, stores.len() as u64);
                continue;
            }
            let found = contents.load(address, size);
            let source = latest(&stores, address, size);
            prop_assert_eq!(found.source, source, "load {} of {:x?}", at, accesses);
            if let Source::Store(number) = source {
                let (from, own) = stores[number as usize - 1];
                if own <= 8 {
                    let part = values[number as usize - 1] >> (8 * (address - from));
                    prop_assert_eq!(found.value, part & LOW[usize::from(size)]);
                }
            }
            if source == Source::Cache && size <= 8 {
                let again = contents.load(address, size);
                prop_assert_eq!(again, found);
            }
        }
    }
}

#[test]
fn loads_beside_a_store_are_remembered_until_something_is_stored_there() {
    let mut contents = Contents::new();
    contents.store(0x1001, 1, 7, 1);
    let loads = [(0x1002, 2), (0x1004, 4), (0x1004, 2)];
    let load = |contents: &mut Contents| loads.map(|(at, size)| contents.load(at, size));
    let first = load(&mut contents);
    assert!(first.iter().all(|found| found.source == Source::Cache));
    assert_eq!(load(&mut contents), first);
    // A store elsewhere in the word leaves what it does not touch.
    contents.store(0x1006, 1, 7, 2);
    assert_eq!(contents.load(0x1002, 2), first[0]);
    assert_eq!(contents.load(0x1004, 4).source, Source::Blocked(2));
    assert_eq!(contents.load(0x1004, 2).source, Source::Cache);
    assert_eq!(contents.load(0x1000, 2).source, Source::Blocked(1));
}

#[test]
fn what_stores_of_nobody_knows_how_many_bytes_write_is_not_remembered() {
    let mut contents = Contents::new();
    contents.store(0x1000, 4, 9, 1);
    for address in 0x1000..0x1008 {
        contents.store(address, 0, 3, 2);
    }
    let found = contents.load(0x1000, 4);
    assert_eq!((found.value, found.source), (9, Source::Store(1)));
    assert_eq!(contents.load(0x1004, 4).source, Source::Cache);
    assert_eq!(contents.load(0x1004, 0).source, Source::Cache);
}
