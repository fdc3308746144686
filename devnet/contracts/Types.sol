// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {G1} from "./BN254.sol";

/// One Operator in a committed OperatorSet. Its index in the set is its place in `nonSigners`.
struct Member {
    address operator;
    G1 key;
    uint256 stake;
}

/// The response to a Task: the least divisor p > 1 of its input n, and q = n / p.
struct Answer {
    uint256 p;
    uint256 q;
}

/// A unit of work. Its hash is its identity: it holds its parent block's hash, so a number that comes back
/// on another fork is another Task.
struct Task {
    bytes32 taskType;
    uint256 input;
    bytes32 parentHash;
    bytes32 setHash;
    uint64 deadline;
    uint64 grace;
    uint16 responseThreshold;
    uint16 stakeThreshold;
    uint64 number;
}

/// The identity of a Task.
function taskHashOf(Task calldata task) pure returns (bytes32) {
    return keccak256(abi.encode(task));
}

/// The identity of an OperatorSet.
function setHashOf(Member[] memory members) pure returns (bytes32) {
    return keccak256(abi.encode(members));
}

/// What stands for an Answer in signatures and records.
function responseDigestOf(Answer calldata answer) pure returns (bytes32) {
    return keccak256(abi.encode(answer));
}

/// What stands for an accepted response, and for who signed it: all members of the Task's set but `nonSigners`.
function recordHashOf(bytes32 taskHash, bytes32 responseDigest, uint256[] calldata nonSigners) pure returns (bytes32) {
    return keccak256(abi.encode(taskHash, responseDigest, nonSigners));
}
