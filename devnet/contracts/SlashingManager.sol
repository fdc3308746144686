// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {G1} from "./BN254.sol";
import {Delegation} from "./Delegation.sol";
import {OperatorRegistry} from "./OperatorRegistry.sol";
import {Slasher} from "./Slasher.sol";
import {TaskManager} from "./TaskManager.sol";
import {Answer, Member, Task, recordHashOf, responseDigestOf, setHashOf, taskHashOf} from "./Types.sol";

/// @title Slashing by proof, with time for a veto
/// @notice Whoever proves a condition makes a request, whose life is that of every Slasher's; the funds go to the
/// Network's Burner. Each condition has its own `prove…` function and ends in `_request`.
contract SlashingManager is Slasher {
    /// @notice A miss counted for a request; it counts for no other.
    event MissCounted(bytes32 indexed requestId, bytes32 indexed taskHash, address indexed operator);
    /// @notice No Task has this hash: it was changed, or it is another fork's.
    error TaskUnknown(bytes32 taskHash);
    /// @notice The members given are not the set that the Task committed to, or not the newest one.
    error WrongOperatorSet(bytes32 expected, bytes32 got);
    /// @notice No set was given in this place.
    error OperatorSetMissing(uint256 set, uint256 sets);
    /// @notice The set has no member with this index.
    error MemberUnknown(uint256 index, uint256 members);
    /// @notice Both answers are the same: signing twice is no offence.
    error SameResponse(bytes32 responseDigest);
    /// @notice A signature is not the member's over this Task and response.
    error SignatureInvalid(bytes32 responseDigest);
    /// @notice Nothing shows that this answer is wrong.
    error AnswerNotRefuted(uint256 divisor);
    /// @notice This is not the accepted response with those who did not sign it; `expected` is zero where none was
    /// accepted.
    error WrongRecord(bytes32 expected, bytes32 got);
    /// @notice The member is not among those who signed the accepted response.
    error NotSigner(uint256 index);
    /// @notice One more miss than the Network allows is an offence, no fewer and, since each counts but once, no more.
    error WrongNumberOfMisses(uint256 expected, uint256 got);
    /// @notice Misses are given by rising Task numbers, so that none is given twice.
    error MissesUnsorted(uint256 position);
    /// @notice Misses are all of one Operator.
    error WrongOperator(address expected, address got);
    /// @notice The Operator can still attest.
    error GraceNotPassed(uint64 last);
    /// @notice The Operator attested, or is among those who signed the accepted response.
    error DutyDone(bytes32 taskHash);
    /// @notice The Operator owed nothing for this Task: it was cancelled, the Network was paused, or the Operator had
    /// left by its submission.
    error DutyExcused(bytes32 taskHash);
    /// @notice This miss has counted for a request already.
    error MissAlreadyCounted(bytes32 taskHash);
    /// @notice The Tasks were submitted in more blocks than the window has.
    error MissesTooFarApart(uint64 first, uint64 last);
    /// @notice The Operator has left: its registration of when the set was committed has ended.
    error HasLeft(address operator);
    /// @notice The Operator has the minimum of stake, or a slashing took it.
    error BondKept(address operator, uint256 stake, uint256 minimum);
    /// @notice The offence lies too far back.
    error SlashingWindowPassed(uint64 last);
    /// @notice The penalty is 1 to 10,000 basis points.
    error PenaltyOutOfRange(uint16 penalty);
    /// @notice No Tasks lie in a window of no blocks.
    error MissWindowIsZero();
    /// @notice Collateral could leave before the last offence that it stands for can be proved.
    error BondingPeriodTooShort(uint64 bondingPeriod, uint256 longest);

    /// A Task that a member of its set neither signed nor attested a response to.
    struct Miss {
        Task task;
        uint256 set; // the place, among those given, of the set that it committed to
        uint256 index; // the member's in it
        uint256[] nonSigners; // of the accepted response; empty where none was accepted
    }

    /// @notice Two different responses to one Task, signed by one Operator.
    bytes32 public constant EQUIVOCATION = keccak256("equivocation");
    /// @notice A response that is shown to be wrong, signed by an Operator, alone or in a quorum.
    bytes32 public constant INVALID_RESPONSE = keccak256("invalid_response");
    /// @notice More misses of one Operator than the Network allows in a window. The Task in its request is the last.
    bytes32 public constant MISSED_DUTY = keccak256("missed_duty");
    /// @notice Less stake than the minimum behind an Operator that Tasks still count on.
    bytes32 public constant BOND_BREACH = keccak256("bond_breach");

    /// @notice The Tasks that offences are about.
    TaskManager public immutable tasks;
    /// @notice Who the Operators are.
    OperatorRegistry public immutable operators;
    /// @notice Blocks after a Task's deadline and grace in which its offences can be proved.
    uint64 public immutable slashingWindow;
    /// @notice Basis points of the Operator's stake in the Task's set; for a breach of its bond, of all that is here.
    uint16 public immutable penalty;
    /// @notice So many misses in a window are no offence.
    uint16 public immutable missAllowance;
    /// @notice Blocks of the window in which the Tasks of misses are submitted.
    uint64 public immutable missWindow;

    /// @notice Whether a miss has counted for a request, whatever became of that.
    mapping(bytes32 taskHash => mapping(address operator => bool)) public missCounted;

    /// @notice The Network and its collateral are those of `tasks_`. Reverts where the bonding period is so
    /// short that an offender could leave in time.
    /// @dev Collateral that is asked back in a block can still be counted by the set committed last, so by
    /// Tasks submitted up to `maxSetAge` blocks later; those last `maxDuration` at most, and their offences can
    /// be proved through `slashingWindow` more blocks. Until the last of these is over it must not be ready;
    /// the other windows need no more, since a proof holds back all that is here until it was time to execute. Nor
    /// does the window of misses: the last of them makes the offence, and what is slashed is the stake that its set
    /// counted. Those before it were submitted before it, so all of them end within `maxDuration` of its submission.
    /// @param tasks_ The Tasks.
    /// @param vetoCommittee_ Who may overrule.
    /// @param vetoWindow_ In blocks.
    /// @param executionWindow_ In blocks.
    /// @param slashingWindow_ In blocks.
    /// @param penalty_ In basis points.
    /// @param missAllowance_ Misses in a window that are no offence.
    /// @param missWindow_ In blocks.
    constructor(
        TaskManager tasks_,
        address vetoCommittee_,
        uint64 vetoWindow_,
        uint64 executionWindow_,
        uint64 slashingWindow_,
        uint16 penalty_,
        uint16 missAllowance_,
        uint64 missWindow_
    ) Slasher(tasks_.operators().delegation(), vetoCommittee_, vetoWindow_, executionWindow_) {
        if (penalty_ == 0 || penalty_ > 10_000) revert PenaltyOutOfRange(penalty_);
        if (missWindow_ == 0) revert MissWindowIsZero();
        uint256 longest = uint256(tasks_.maxSetAge()) + tasks_.maxDuration() + slashingWindow_;
        if (delegation.bondingPeriod() <= longest) revert BondingPeriodTooShort(delegation.bondingPeriod(), longest);
        tasks = tasks_;
        operators = tasks_.operators();
        slashingWindow = slashingWindow_;
        penalty = penalty_;
        missAllowance = missAllowance_;
        missWindow = missWindow_;
    }

    /// @notice Prove that a member signed two different responses to one Task. Anyone may.
    /// @param task The Task.
    /// @param members The set that it committed to.
    /// @param index The member's index in it.
    /// @param a One response.
    /// @param signatureA The member's signature over it.
    /// @param b Another response.
    /// @param signatureB The member's signature over that.
    /// @return requestId The slashing request.
    function proveEquivocation(
        Task calldata task,
        Member[] calldata members,
        uint256 index,
        Answer calldata a,
        G1 calldata signatureA,
        Answer calldata b,
        G1 calldata signatureB
    ) external returns (bytes32 requestId) {
        Member calldata member = _member(task, members, index);
        _requireDifferent(a, b);
        bytes32 taskHash = taskHashOf(task);
        _requireSigned(member.key, taskHash, a, signatureA);
        _requireSigned(member.key, taskHash, b, signatureB);
        return _request(EQUIVOCATION, taskHash, member.operator, member.stake);
    }

    /// @notice Prove that a member was in the quorum of one response and signed another. Anyone may. Whether the
    /// accepted one was refuted is no matter.
    /// @param task The Task.
    /// @param members The set that it committed to.
    /// @param index The member's index in it.
    /// @param answer The accepted response.
    /// @param nonSigners Those who did not sign it, as they were accepted.
    /// @param other Another response.
    /// @param signatureOfOther The member's signature over that.
    /// @return requestId The slashing request.
    function proveEquivocationInQuorum(
        Task calldata task,
        Member[] calldata members,
        uint256 index,
        Answer calldata answer,
        uint256[] calldata nonSigners,
        Answer calldata other,
        G1 calldata signatureOfOther
    ) external returns (bytes32 requestId) {
        Member calldata member = _member(task, members, index);
        _requireDifferent(answer, other);
        bytes32 taskHash = taskHashOf(task);
        _requireInQuorum(index, taskHash, answer, nonSigners);
        _requireSigned(member.key, taskHash, other, signatureOfOther);
        return _request(EQUIVOCATION, taskHash, member.operator, member.stake);
    }

    /// @notice Prove that a member signed a wrong response, wherever its signature was shown. Anyone may.
    /// @param task The Task.
    /// @param members The set that it committed to.
    /// @param index The member's index in it.
    /// @param answer The response.
    /// @param signature The member's signature over it.
    /// @param divisor What refutes it; zero where it refutes itself (see TaskManager.refutes).
    /// @return requestId The slashing request.
    function proveInvalidResponse(
        Task calldata task,
        Member[] calldata members,
        uint256 index,
        Answer calldata answer,
        G1 calldata signature,
        uint256 divisor
    ) external returns (bytes32 requestId) {
        Member calldata member = _member(task, members, index);
        _requireRefuted(task, answer, divisor);
        bytes32 taskHash = taskHashOf(task);
        _requireSigned(member.key, taskHash, answer, signature);
        return _request(INVALID_RESPONSE, taskHash, member.operator, member.stake);
    }

    /// @notice Prove that a member was in the quorum of a wrong response, whether that was challenged or not. Anyone
    /// may: who signed was checked when it was accepted.
    /// @param task The Task.
    /// @param members The set that it committed to.
    /// @param index The member's index in it.
    /// @param answer The accepted response.
    /// @param nonSigners Those who did not sign it, as they were accepted.
    /// @param divisor What refutes it; zero where it refutes itself.
    /// @return requestId The slashing request.
    function proveInvalidResponseInQuorum(
        Task calldata task,
        Member[] calldata members,
        uint256 index,
        Answer calldata answer,
        uint256[] calldata nonSigners,
        uint256 divisor
    ) external returns (bytes32 requestId) {
        Member calldata member = _member(task, members, index);
        _requireRefuted(task, answer, divisor);
        bytes32 taskHash = taskHashOf(task);
        _requireInQuorum(index, taskHash, answer, nonSigners);
        return _request(INVALID_RESPONSE, taskHash, member.operator, member.stake);
    }

    /// @notice Prove that an Operator missed one duty more than the Network allows: for each of so many Tasks, all
    /// submitted in `missWindow` blocks, it is no signer of the accepted response, if there is one, and did not attest
    /// until the end of the grace, and is not excused. Anyone may, for `slashingWindow` blocks from when the last of
    /// the graces has ended. Each miss counts for one request only, also where that is vetoed.
    /// @param sets The sets that the Tasks committed to, each once: Tasks that lie close mostly share one.
    /// @param misses `missAllowance + 1` of one Operator, by rising numbers of their Tasks.
    /// @return requestId The slashing request, about the last of the Tasks.
    function proveMissedDuty(Member[][] calldata sets, Miss[] calldata misses) external returns (bytes32 requestId) {
        uint256 count = uint256(missAllowance) + 1;
        if (misses.length != count) revert WrongNumberOfMisses(count, misses.length);
        bytes32[] memory setHashes = _setHashesOf(sets);
        Miss calldata newest = misses[count - 1];
        Member calldata member = _memberOfMiss(newest, sets, setHashes);
        requestId = requestIdOf(MISSED_DUTY, taskHashOf(newest.task), member.operator);
        uint64 end;
        for (uint256 i = 0; i < count; ++i) {
            Task calldata task = misses[i].task;
            if (i != 0 && task.number <= misses[i - 1].task.number) revert MissesUnsorted(i);
            _requireMissed(misses[i], _memberOfMiss(misses[i], sets, setHashes), member.operator);
            _count(requestId, taskHashOf(task), member.operator);
            if (task.deadline + task.grace > end) end = task.deadline + task.grace;
        }
        _requireInOneWindow(misses[0].task, newest.task);
        _requireProvable(end);
        _request(MISSED_DUTY, taskHashOf(newest.task), member.operator, member.stake);
    }

    /// @notice Prove that an Operator, in the newest OperatorSet and not deregistered, has less stake than the minimum,
    /// since it was asked back: Tasks submitted now would count on what is leaving. Anyone may, for as long as it is so.
    /// An honest Operator is never in breach if it deregisters before it asks its own stake back, or always leaves the
    /// minimum; and if it has the minimum itself, so that it depends on no other Delegator: whatever they ask back,
    /// that stays. After a slashing it brings as much anew, or deregisters. Who mends a breach before it is proved,
    /// by new stake, by leaving, or by having a set committed that counts it no more, is not slashed for it.
    /// @param members The newest set.
    /// @param index The Operator's index in it.
    /// @return requestId The slashing request, of the set's hash and no Task's: one for each Operator and set.
    function proveBondBreach(Member[] calldata members, uint256 index) external returns (bytes32 requestId) {
        bytes32 setHash = operators.setHash();
        Member calldata member = _memberOfSet(setHash, setHashOf(members), members, index);
        address operator = member.operator;
        if (operators.effectiveBlockOf(member.key) != 0) revert HasLeft(operator);
        if (!delegation.isUnderbonded(operator)) {
            revert BondKept(operator, delegation.stakeOf(operator), delegation.minimum());
        }
        return _request(BOND_BREACH, setHash, operator, delegation.slashableOf(operator));
    }

    /// @notice The request that an offence makes, whether it is made yet or not; for a breach of a bond, `taskHash` is
    /// the OperatorSet's. The id is the offence's own and no place in a row, so that a veto or an execution that a
    /// reorg brings back where other requests came first means the same offence, or none.
    function requestIdOf(bytes32 condition, bytes32 taskHash, address operator) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), condition, taskHash, operator));
    }

    /// @dev The end of every proof: one request for each (condition, Task or set, Operator) over the penalty on some
    /// stake. One that has expired was the only one.
    function _request(bytes32 condition, bytes32 taskHash, address operator, uint256 stake)
        private
        returns (bytes32 requestId)
    {
        requestId = requestIdOf(condition, taskHash, operator);
        _open(requestId, condition, operator, taskHash, stake * penalty / 10_000);
    }

    function _take(bytes32, address operator, uint256 amount) internal override returns (uint256, address) {
        return delegation.slash(operator, amount);
    }

    /// @dev The member that an offence is about which can still be proved.
    function _member(Task calldata task, Member[] calldata members, uint256 index)
        private
        view
        returns (Member calldata member)
    {
        _requireKnown(task);
        member = _memberOfSet(task.setHash, setHashOf(members), members, index);
        _requireProvable(task.deadline + task.grace);
    }

    function _memberOfMiss(Miss calldata miss, Member[][] calldata sets, bytes32[] memory setHashes)
        private
        view
        returns (Member calldata)
    {
        _requireKnown(miss.task);
        if (miss.set >= sets.length) revert OperatorSetMissing(miss.set, sets.length);
        return _memberOfSet(miss.task.setHash, setHashes[miss.set], sets[miss.set], miss.index);
    }

    /// @dev The member in the set that is expected; `got` is the hash of `members`.
    function _memberOfSet(bytes32 expected, bytes32 got, Member[] calldata members, uint256 index)
        private
        pure
        returns (Member calldata)
    {
        if (got != expected) revert WrongOperatorSet(expected, got);
        if (index >= members.length) revert MemberUnknown(index, members.length);
        return members[index];
    }

    function _setHashesOf(Member[][] calldata sets) private pure returns (bytes32[] memory setHashes) {
        setHashes = new bytes32[](sets.length);
        for (uint256 i = 0; i < sets.length; ++i) {
            setHashes[i] = setHashOf(sets[i]);
        }
    }

    /// @dev That the Task is one of this chain.
    function _requireKnown(Task calldata task) private view {
        bytes32 taskHash = taskHashOf(task);
        if (tasks.statusOf(taskHash).state == TaskManager.State.Unknown) revert TaskUnknown(taskHash);
    }

    function _requireProvable(uint64 end) private view {
        uint64 last = end + slashingWindow;
        if (block.number > last) revert SlashingWindowPassed(last);
    }

    function _requireDifferent(Answer calldata a, Answer calldata b) private pure {
        if (responseDigestOf(a) == responseDigestOf(b)) revert SameResponse(responseDigestOf(a));
    }

    function _requireSigned(G1 calldata key, bytes32 taskHash, Answer calldata answer, G1 calldata signature)
        private
        view
    {
        bytes32 digest = responseDigestOf(answer);
        if (!tasks.isSignedBy(key, taskHash, digest, signature)) revert SignatureInvalid(digest);
    }

    function _requireRefuted(Task calldata task, Answer calldata answer, uint256 divisor) private view {
        if (!tasks.refutes(task.input, answer, divisor)) revert AnswerNotRefuted(divisor);
    }

    /// @dev That the answer was accepted and the member is among its signers.
    function _requireInQuorum(
        uint256 index,
        bytes32 taskHash,
        Answer calldata answer,
        uint256[] calldata nonSigners
    ) private view {
        bytes32 expected = tasks.statusOf(taskHash).recordHash;
        bytes32 got = recordHashOf(taskHash, responseDigestOf(answer), nonSigners);
        if (got != expected) revert WrongRecord(expected, got);
        if (_contains(nonSigners, index)) revert NotSigner(index);
    }

    /// @dev That this Operator owed a response and gave none, which nothing can change any more.
    function _requireMissed(Miss calldata miss, Member calldata member, address operator) private view {
        Task calldata task = miss.task;
        if (member.operator != operator) revert WrongOperator(operator, member.operator);
        if (block.number <= task.deadline + task.grace) revert GraceNotPassed(task.deadline + task.grace);
        bytes32 taskHash = taskHashOf(task);
        TaskManager.Status memory status = tasks.statusOf(taskHash);
        uint64 left = operators.effectiveBlockOf(member.key);
        if (tasks.isExcused(task) || (left != 0 && left <= status.submittedBlock)) revert DutyExcused(taskHash);
        if (tasks.attestedDigest(taskHash, operator) != 0) revert DutyDone(taskHash);
        if (status.recordHash == 0) return;
        bytes32 got = recordHashOf(taskHash, status.responseDigest, miss.nonSigners);
        if (got != status.recordHash) revert WrongRecord(status.recordHash, got);
        if (!_contains(miss.nonSigners, miss.index)) revert DutyDone(taskHash);
    }

    function _requireInOneWindow(Task calldata oldest, Task calldata newest) private view {
        uint64 first = tasks.statusOf(taskHashOf(oldest)).submittedBlock;
        uint64 last = tasks.statusOf(taskHashOf(newest)).submittedBlock;
        if (last - first >= missWindow) revert MissesTooFarApart(first, last);
    }

    function _count(bytes32 requestId, bytes32 taskHash, address operator) private {
        if (missCounted[taskHash][operator]) revert MissAlreadyCounted(taskHash);
        missCounted[taskHash][operator] = true;
        emit MissCounted(requestId, taskHash, operator);
    }

    function _contains(uint256[] calldata indices, uint256 index) private pure returns (bool) {
        for (uint256 i = 0; i < indices.length; ++i) {
            if (indices[i] == index) return true;
        }
        return false;
    }
}
