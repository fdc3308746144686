// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {BN254, G1, G2} from "./BN254.sol";
import {Delegation} from "./Delegation.sol";
import {Member, setHashOf} from "./Types.sol";

/// @title Who the Operators are, with which keys, and the OperatorSets that Tasks commit to
/// @notice A key comes with a proof of possession (else keys could be made to cancel each other), its G1
/// and G2 twins are shown to belong together, and nobody can ever bring a key that was here before.
contract OperatorRegistry is EIP712 {
    using EnumerableSet for EnumerableSet.AddressSet;

    /// @notice An Operator joined. It is in the next committed set if its stake is enough.
    event OperatorRegistered(address indexed operator, G1 key, G2 keyG2, string region, uint32 validators);
    /// @notice An Operator changed its key. It counts from the next committed set on.
    event KeyRotated(address indexed operator, G1 key, G2 keyG2);
    /// @notice An Operator left or was evicted: it owes nothing for Tasks submitted at `effectiveBlock` or later.
    event OperatorDeregistered(address indexed operator, uint64 effectiveBlock);
    /// @notice An OperatorSet was committed. Tasks submitted from here on commit to it.
    event OperatorSetCommitted(bytes32 indexed setHash, uint64 setNumber, Member[] members);

    /// @notice The sender is registered already.
    error AlreadyRegistered(address operator);
    /// @notice The sender is not registered.
    error NotRegistered(address operator);
    /// @notice The sender's deregistration has not taken effect yet.
    error DeregistrationPending(address operator, uint64 effectiveBlock);
    /// @notice This key was registered before, by whomever: keys are unique for ever.
    error KeyAlreadyUsed(bytes32 keyHash);
    /// @notice The proof was not made with this key for this sender, or the G1 and G2 keys are not twins.
    error ProofOfPossessionInvalid();
    /// @notice There is no more room for Operators: somebody must be evicted or leave.
    error TooManyOperators(uint256 limit);
    /// @notice Too little stake is behind the sender for it to be in an OperatorSet.
    error StakeBelowMinimum(uint256 stake, uint256 minimum);
    /// @notice Nobody with enough stake can be evicted.
    error StakeIsEnough(uint256 stake, uint256 minimum);
    /// @notice The region's name is too long.
    error RegionTooLong(uint256 length, uint256 limit);
    /// @notice No registered Operator has enough stake.
    error NoEligibleOperators();
    /// @notice No Operator ever registered this key.
    error KeyUnknown(bytes32 keyHash);

    struct Operator {
        G1 key;
        uint64 registration; // the one that stands, or the last
    }

    struct Key {
        G2 twin;
        uint64 registration; // in which it was brought
    }

    /// @notice The type of what an Operator signs to show that it has the key.
    bytes32 public constant PROOF_TYPEHASH = keccak256("ProofOfPossession(address operator,bytes32 keyHash)");
    /// @notice So many Operators fit: a set must fit a transaction.
    uint256 public constant MAX_OPERATORS = 1024;
    /// @notice So many bytes a region's name may have.
    uint256 public constant MAX_REGION = 64;

    /// @notice Where the stake stands.
    Delegation public immutable delegation;
    /// @notice The newest committed set; zero before the first.
    bytes32 public setHash;
    /// @notice How many sets were committed.
    uint64 public setNumber;
    /// @notice The newest block in which `setHash` was shown to be what a set committed then would be.
    uint64 public setBlock;
    uint64 private _registrations; // so many there were; they are numbered from 1

    mapping(address operator => Operator) private _operators;
    mapping(bytes32 keyHash => Key) private _keys;
    EnumerableSet.AddressSet private _registered;
    mapping(uint64 registration => uint64 effectiveBlock) private _ends;

    /// @param delegation_ Where the stake stands.
    constructor(Delegation delegation_) EIP712("Nektar", "1") {
        delegation = delegation_;
    }

    /// @notice Join as an Operator, with at least the minimum of stake behind oneself. There are MAX_OPERATORS
    /// places; whoever would hold them all keeps so many minima bonded, since who falls below is evicted.
    /// @param key The key in G1.
    /// @param keyG2 The same key in G2.
    /// @param proof Signature over `proofDigest(sender, keyHash)` with that key.
    /// @param region Where it runs, as it says.
    /// @param validators How many validators it runs, as it says.
    function register(G1 calldata key, G2 calldata keyG2, G1 calldata proof, string calldata region, uint32 validators)
        external
    {
        uint64 effectiveBlock = _ends[_operators[msg.sender].registration];
        if (block.number < effectiveBlock) revert DeregistrationPending(msg.sender, effectiveBlock);
        if (bytes(region).length > MAX_REGION) revert RegionTooLong(bytes(region).length, MAX_REGION);
        (uint256 stake, uint256 minimum) = _stakeAndMinimum(msg.sender);
        if (stake < minimum) revert StakeBelowMinimum(stake, minimum);
        if (!_registered.add(msg.sender)) revert AlreadyRegistered(msg.sender);
        if (_registered.length() > MAX_OPERATORS) revert TooManyOperators(MAX_OPERATORS);
        _operators[msg.sender].registration = ++_registrations;
        _adopt(key, keyG2, proof);
        emit OperatorRegistered(msg.sender, key, keyG2, region, validators);
    }

    /// @notice Change one's key. Open Tasks keep the set, and so the key, that they committed to.
    function rotateKey(G1 calldata key, G2 calldata keyG2, G1 calldata proof) external {
        if (!_registered.contains(msg.sender)) revert NotRegistered(msg.sender);
        _adopt(key, keyG2, proof);
        emit KeyRotated(msg.sender, key, keyG2);
    }

    /// @notice Leave. Takes effect with the next block, and no later set holds the Operator.
    function deregister() external {
        _remove(msg.sender);
    }

    /// @notice Deregister an Operator whose stake has fallen below the minimum: no set could hold it, and its
    /// place may be another's. Anyone may.
    function evict(address operator) external {
        (uint256 stake, uint256 minimum) = _stakeAndMinimum(operator);
        if (stake >= minimum) revert StakeIsEnough(stake, minimum);
        _remove(operator);
    }

    /// @notice Commit the registered Operators that have enough stake, for Tasks to come. Anyone may: there
    /// is nothing to choose. Where nothing changed since the last set, that one stands, as fresh as a new one,
    /// and no event is made.
    /// @return The set's hash.
    function commitSet() external returns (bytes32) {
        Member[] memory members = eligible();
        if (members.length == 0) revert NoEligibleOperators();
        bytes32 newest = setHashOf(members);
        setBlock = uint64(block.number);
        if (newest != setHash) {
            setHash = newest;
            emit OperatorSetCommitted(newest, ++setNumber, members);
        }
        return newest;
    }

    /// @notice The members that a set committed now would have.
    function eligible() public view returns (Member[] memory members) {
        address[] memory operators = _registered.values();
        members = new Member[](operators.length);
        uint256 minimum = delegation.minimum();
        uint256 count;
        for (uint256 i = 0; i < operators.length; ++i) {
            uint256 stake = delegation.stakeOf(operators[i]);
            if (stake >= minimum) members[count++] = Member(operators[i], _operators[operators[i]].key, stake);
        }
        assembly ("memory-safe") {
            mstore(members, count) // shortened to those that were let in
        }
    }

    /// @notice Whether this account is a registered Operator.
    function isRegistered(address operator) external view returns (bool) {
        return _registered.contains(operator);
    }

    /// @notice The G2 twin of a key that was ever registered. Reverts with KeyUnknown.
    function keyG2Of(G1 calldata key) external view returns (G2 memory keyG2) {
        bytes32 keyHash = keccak256(abi.encode(key));
        keyG2 = _keys[keyHash].twin;
        if (BN254.isIdentity(keyG2)) revert KeyUnknown(keyHash);
    }

    /// @notice From which block on its Operator owes nothing under a key: its registration, the one in which the key
    /// was brought, ended then. Zero while that stands, also where another key took this one's place; who registers
    /// anew owes nothing more for sets of before. Reverts with KeyUnknown.
    function effectiveBlockOf(G1 calldata key) external view returns (uint64) {
        bytes32 keyHash = keccak256(abi.encode(key));
        uint64 registration = _keys[keyHash].registration;
        if (registration == 0) revert KeyUnknown(keyHash);
        return _ends[registration];
    }

    /// @notice What an Operator signs, hashed to G1, to show that it has a key (EIP-712).
    function proofDigest(address operator, bytes32 keyHash) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(PROOF_TYPEHASH, operator, keyHash)));
    }

    function _stakeAndMinimum(address operator) private view returns (uint256 stake, uint256 minimum) {
        return (delegation.stakeOf(operator), delegation.minimum());
    }

    function _remove(address operator) private {
        if (!_registered.remove(operator)) revert NotRegistered(operator);
        uint64 effectiveBlock = uint64(block.number) + 1;
        _ends[_operators[operator].registration] = effectiveBlock;
        emit OperatorDeregistered(operator, effectiveBlock);
    }

    function _adopt(G1 calldata key, G2 calldata keyG2, G1 calldata proof) private {
        bytes32 keyHash = keccak256(abi.encode(key));
        if (_keys[keyHash].registration != 0) revert KeyAlreadyUsed(keyHash);
        if (!BN254.verifyWithTwin(proofDigest(msg.sender, keyHash), proof, key, keyG2)) {
            revert ProofOfPossessionInvalid();
        }
        _keys[keyHash] = Key(keyG2, _operators[msg.sender].registration);
        _operators[msg.sender].key = key;
    }
}
