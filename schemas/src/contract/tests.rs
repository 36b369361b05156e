//! What loading a contract promises.

use super::*;

#[test]
fn the_clinical_contract_loads_clean() {
    let contract = clinical();
    assert_eq!(contract.streams.len(), 4);
}
