// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// Emits as many events as it is told, each of other content: what the benches index.
contract Emitter {
    event Sample(address indexed who, uint256 amount, uint256 place);

    /// `count` events, with places from `first` on.
    function emitSamples(uint256 first, uint256 count) external {
        for (uint256 place = first; place < first + count; place++) {
            uint256 seed = uint256(keccak256(abi.encode(place)));
            emit Sample(address(uint160(seed)), seed >> 128, place);
        }
    }
}
