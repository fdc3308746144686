// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {BN254, G1, G2} from "./BN254.sol";
import {Delegation} from "./Delegation.sol";
import {NetworkRegistry} from "./NetworkRegistry.sol";
import {OperatorRegistry} from "./OperatorRegistry.sol";
import {Answer, Member, Task, recordHashOf, responseDigestOf, setHashOf, taskHashOf} from "./Types.sol";

/// @title Tasks and the responses to them
/// @notice A Task asks for the least divisor p > 1 of n, and q = n / p: dear to compute, cheap to check,
/// and with one answer for every n, so that responses aggregate. The Aggregator's response is accepted
/// optimistically and can be challenged for a window; any Operator can attest by itself until the deadline,
/// and as late through the grace after it, so that no Aggregator can silence it.
/// @dev Tasks travel in calldata; only what became of a taskHash is stored. A Task of another fork has
/// another hash, and is unknown here.
contract TaskManager is EIP712, Ownable, Pausable {
    /// @notice A Task was submitted.
    event TaskSubmitted(bytes32 indexed taskHash, uint64 indexed number, address indexed submitter, Task task);
    /// @notice A response of the quorum was accepted. `nonSigners` are indices into the Task's set. It can be
    /// challenged in blocks up to `challengeDeadline`.
    event Responded(
        bytes32 indexed taskHash,
        bytes32 indexed responseDigest,
        Answer answer,
        uint256[] nonSigners,
        bytes32 recordHash,
        G1 signature,
        G2 apkG2,
        uint64 challengeDeadline
    );
    /// @notice An Operator put its own response on chain. Only its first one is `kept`.
    event Attested(
        bytes32 indexed taskHash,
        address indexed operator,
        bytes32 indexed responseDigest,
        Answer answer,
        G1 signature,
        bool late,
        bool kept
    );
    /// @notice A Task was called off; nobody owes anything for it.
    event TaskCancelled(bytes32 indexed taskHash);
    /// @notice An accepted response was refuted, and is accepted no more. `divisor` is what refuted it; zero
    /// where the answer refutes itself.
    event ResponseChallenged(bytes32 indexed taskHash, uint256 divisor, address challenger);

    /// @notice Only a submitter whom the Network allowed may submit.
    error NotSubmitter(address sender);
    /// @notice The Network has no such task type.
    error TaskTypeUnknown(bytes32 taskType);
    /// @notice n must be at least 2 and below 2^64.
    error InputOutOfRange(uint256 input);
    /// @notice The window must be at least a block, and window and grace together at most `maxDuration`.
    error WindowOutOfRange(uint64 window, uint64 grace);
    /// @notice Thresholds are 1 to 10,000 basis points.
    error ThresholdOutOfRange(uint16 responseThreshold, uint16 stakeThreshold);
    /// @notice No OperatorSet was committed yet.
    error NoOperatorSet();
    /// @notice The newest OperatorSet counts stake of too long ago; anyone can call `commitSet`.
    error OperatorSetStale(uint64 last);
    /// @notice No Task has this hash: it was changed, or it is another fork's.
    error TaskUnknown(bytes32 taskHash);
    /// @notice The Task is not in the state that this needs.
    error WrongState(bytes32 taskHash, State state);
    /// @notice The members given are not the set that the Task committed to.
    error WrongOperatorSet(bytes32 expected, bytes32 got);
    /// @notice The Task's deadline has passed.
    error DeadlinePassed(uint64 deadline);
    /// @notice The grace after the Task's deadline has passed.
    error GracePassed(uint64 last);
    /// @notice `nonSigners` must be rising indices of members.
    error NonSignersUnsorted(uint256 position);
    /// @notice Too few members signed.
    error ResponseThresholdMissed(uint256 signers, uint256 members);
    /// @notice Too little stake signed.
    error StakeThresholdMissed(uint256 signed, uint256 total);
    /// @notice The signature is not one of this key over this Task and response.
    error SignatureInvalid();
    /// @notice An attestation is sent by the member itself.
    error NotMember(address sender, uint256 index);
    /// @notice Only the Task's submitter or the owner may cancel it.
    error NotCanceller(address sender);
    /// @notice The answer given is not the accepted one.
    error WrongAnswer(bytes32 expected, bytes32 got);
    /// @notice The window for challenges has passed.
    error ChallengeWindowPassed(uint64 challengeDeadline);
    /// @notice That does not refute the answer.
    error ChallengeInvalid(uint256 divisor);

    /// What became of a Task.
    enum State {
        Unknown,
        Open,
        Responded,
        Challenged,
        Cancelled
    }

    /// What is known of a Task. A response that was refuted stays here, and with it who signed it.
    struct Status {
        State state;
        uint64 challengeDeadline; // of the accepted response
        address submitter;
        uint64 submittedBlock;
        uint64 pauses; // that were over before that block
        bytes32 responseDigest; // of the accepted response
        bytes32 recordHash; // of it and its non-signers
    }

    /// @notice The type of what an Operator signs.
    bytes32 public constant RESPONSE_TYPEHASH = keccak256("Response(bytes32 taskHash,bytes32 responseDigest)");
    /// @dev All of it, in basis points.
    uint256 private constant WHOLE = 10_000;

    /// @notice Which Networks there are, and what they allow.
    NetworkRegistry public immutable networks;
    /// @notice The Network whose Tasks these are.
    bytes32 public immutable network;
    /// @notice Who the Operators are.
    OperatorRegistry public immutable operators;
    /// @notice Most blocks from a Task's submission to the end of its grace.
    uint64 public immutable maxDuration;
    /// @notice Blocks after an OperatorSet's commitment in which Tasks can commit to it.
    uint64 public immutable maxSetAge;
    /// @notice Blocks after a response in which it can be challenged.
    uint64 public immutable challengeWindow;
    /// @notice The number of the newest Task: a label only.
    uint64 public taskNumber;

    mapping(bytes32 taskHash => Status) private _status;
    uint64[] private _pauses; // the block in which each began
    uint64 private _unpausedBlock; // in which the last one ended
    /// @notice The digest that an Operator attested first; zero where it attested none.
    mapping(bytes32 taskHash => mapping(address operator => bytes32)) public attestedDigest;

    /// @param owner Who may pause and cancel.
    /// @param operators_ Who the Operators are; the Network is the one whose collateral is behind them.
    /// @param maxDuration_ In blocks. Like the next, it makes the bonding period longer (see SlashingManager).
    /// @param maxSetAge_ In blocks. The set must be committed again within it, changed or not.
    /// @param challengeWindow_ In blocks.
    constructor(
        address owner,
        OperatorRegistry operators_,
        uint64 maxDuration_,
        uint64 maxSetAge_,
        uint64 challengeWindow_
    ) EIP712("Nektar", "1") Ownable(owner) {
        Delegation delegation = operators_.delegation();
        networks = delegation.registry();
        network = delegation.network();
        operators = operators_;
        maxDuration = maxDuration_;
        maxSetAge = maxSetAge_;
        challengeWindow = challengeWindow_;
    }

    /// @notice Submit a Task to the newest OperatorSet. Only allowed submitters.
    /// @param taskType A type that the Network allowed.
    /// @param input n: at least 2, below 2^64.
    /// @param window Blocks until the deadline.
    /// @param grace Blocks after it in which attestations count as late.
    /// @param responseThreshold Basis points of members that must sign.
    /// @param stakeThreshold Basis points of stake that must sign.
    /// @return taskHash The Task's identity.
    function submitTask(
        bytes32 taskType,
        uint256 input,
        uint64 window,
        uint64 grace,
        uint16 responseThreshold,
        uint16 stakeThreshold
    ) external whenNotPaused returns (bytes32 taskHash) {
        if (!networks.isSubmitter(network, msg.sender)) revert NotSubmitter(msg.sender);
        if (!networks.isTaskType(network, taskType)) revert TaskTypeUnknown(taskType);
        if (input < 2 || input > type(uint64).max) revert InputOutOfRange(input);
        if (window == 0 || window > maxDuration || grace > maxDuration - window) {
            revert WindowOutOfRange(window, grace);
        }
        if (_notThreshold(responseThreshold) || _notThreshold(stakeThreshold)) {
            revert ThresholdOutOfRange(responseThreshold, stakeThreshold);
        }
        bytes32 setHash = operators.setHash();
        if (setHash == 0) revert NoOperatorSet();
        uint64 last = operators.setBlock() + maxSetAge;
        if (block.number > last) revert OperatorSetStale(last);
        Task memory task = Task({
            taskType: taskType,
            input: input,
            parentHash: blockhash(block.number - 1),
            setHash: setHash,
            deadline: uint64(block.number) + window,
            grace: grace,
            responseThreshold: responseThreshold,
            stakeThreshold: stakeThreshold,
            number: ++taskNumber
        });
        taskHash = keccak256(abi.encode(task));
        Status storage status = _status[taskHash];
        status.state = State.Open;
        status.submitter = msg.sender;
        status.submittedBlock = uint64(block.number);
        // The Network was paused at a block that a pause ended in: that one is not over before the submission.
        status.pauses = uint64(_unpausedBlock == block.number ? _pauses.length - 1 : _pauses.length);
        emit TaskSubmitted(taskHash, task.number, msg.sender, task);
    }

    /// @notice Put the quorum's response on chain. Anyone may: the signatures speak.
    /// @param task The Task.
    /// @param answer The response that was signed.
    /// @param members The set that the Task committed to.
    /// @param nonSigners Indices of members that did not sign, rising.
    /// @param signature The sum of the signers' signatures.
    /// @param apkG2 The sum of the signers' keys in G2; shown equal to the sum of their G1 keys.
    function respond(
        Task calldata task,
        Answer calldata answer,
        Member[] calldata members,
        uint256[] calldata nonSigners,
        G1 calldata signature,
        G2 calldata apkG2
    ) external whenNotPaused {
        bytes32 taskHash = _known(task);
        Status storage status = _status[taskHash];
        if (status.state != State.Open) revert WrongState(taskHash, status.state);
        if (block.number > task.deadline) revert DeadlinePassed(task.deadline);
        _requireSet(task, members);
        bytes32 digest = responseDigestOf(answer);
        G1 memory apk = _quorumKey(task, members, nonSigners);
        if (!BN254.verifyWithTwin(signingDigest(taskHash, digest), signature, apk, apkG2)) revert SignatureInvalid();
        status.state = State.Responded;
        status.challengeDeadline = uint64(block.number) + challengeWindow;
        status.responseDigest = digest;
        bytes32 recordHash = recordHashOf(taskHash, digest, nonSigners);
        status.recordHash = recordHash;
        emit Responded(
            taskHash, digest, answer, nonSigners, recordHash, signature, apkG2, status.challengeDeadline
        );
    }

    /// @notice Put one's own response on chain. Only the member itself; until deadline + grace. A second one
    /// is emitted with `kept = false` and changes nothing.
    /// @param task The Task.
    /// @param answer The response that was signed.
    /// @param members The set that the Task committed to.
    /// @param index The sender's index in it.
    /// @param signature Its signature.
    function attest(
        Task calldata task,
        Answer calldata answer,
        Member[] calldata members,
        uint256 index,
        G1 calldata signature
    ) external whenNotPaused {
        bytes32 taskHash = _known(task);
        if (_status[taskHash].state == State.Cancelled) revert WrongState(taskHash, State.Cancelled);
        if (block.number > task.deadline + task.grace) revert GracePassed(task.deadline + task.grace);
        _requireSet(task, members);
        if (index >= members.length || members[index].operator != msg.sender) revert NotMember(msg.sender, index);
        bytes32 digest = responseDigestOf(answer);
        if (!isSignedBy(members[index].key, taskHash, digest, signature)) revert SignatureInvalid();
        bool kept = attestedDigest[taskHash][msg.sender] == 0;
        if (kept) attestedDigest[taskHash][msg.sender] = digest;
        emit Attested(taskHash, msg.sender, digest, answer, signature, block.number > task.deadline, kept);
    }

    /// @notice Call off an open Task, until its deadline. Only its submitter or the owner.
    function cancelTask(Task calldata task) external {
        bytes32 taskHash = _known(task);
        Status storage status = _status[taskHash];
        if (msg.sender != status.submitter && msg.sender != owner()) revert NotCanceller(msg.sender);
        if (status.state != State.Open) revert WrongState(taskHash, status.state);
        if (block.number > task.deadline) revert DeadlinePassed(task.deadline);
        status.state = State.Cancelled;
        emit TaskCancelled(taskHash);
    }

    /// @notice Stop submissions, responses and attestations. Only the owner.
    function pause() external onlyOwner {
        _pause();
        _pauses.push(uint64(block.number));
    }

    /// @notice Let them go on. Only the owner.
    function unpause() external onlyOwner {
        _unpause();
        _unpausedBlock = uint64(block.number);
    }

    /// @notice Refute an accepted response: with a divisor of n that is above 1 and below p, or with none
    /// where the answer refutes itself (p < 2, or p · q is not n). Until its challenge deadline; anyone may. The
    /// Task takes no other response.
    function challenge(Task calldata task, Answer calldata answer, uint256 divisor) external {
        bytes32 taskHash = _known(task);
        Status storage status = _status[taskHash];
        if (status.state != State.Responded) revert WrongState(taskHash, status.state);
        if (block.number > status.challengeDeadline) revert ChallengeWindowPassed(status.challengeDeadline);
        bytes32 digest = responseDigestOf(answer);
        if (digest != status.responseDigest) revert WrongAnswer(status.responseDigest, digest);
        if (!refutes(task.input, answer, divisor)) revert ChallengeInvalid(divisor);
        status.state = State.Challenged;
        emit ResponseChallenged(taskHash, divisor, msg.sender);
    }

    /// @notice Whether an answer for n is shown to be wrong, by itself or by a smaller divisor.
    function refutes(uint256 n, Answer calldata answer, uint256 divisor) public pure returns (bool) {
        if (answer.p < 2 || n % answer.p != 0 || n / answer.p != answer.q) return true;
        return divisor > 1 && divisor < answer.p && n % divisor == 0;
    }

    /// @notice What became of a Task.
    function statusOf(bytes32 taskHash) external view returns (Status memory) {
        return _status[taskHash];
    }

    /// @notice Whether nobody owes anything for a Task: it was cancelled, or the Network was paused at some block
    /// from its submission to its deadline, be it for a moment. Once the deadline has passed, that is for good.
    function isExcused(Task calldata task) external view returns (bool) {
        Status storage status = _status[_known(task)];
        if (status.state == State.Cancelled) return true;
        return status.pauses < _pauses.length && _pauses[status.pauses] <= task.deadline;
    }

    /// @notice What an Operator signs, hashed to G1: EIP-712 over chain, contract, purpose, Task, response.
    function signingDigest(bytes32 taskHash, bytes32 responseDigest) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RESPONSE_TYPEHASH, taskHash, responseDigest)));
    }

    /// @notice Whether this is the signature of one registered key over a response. Reverts with KeyUnknown,
    /// InvalidPoint or IdentityPoint.
    function isSignedBy(G1 calldata key, bytes32 taskHash, bytes32 responseDigest, G1 calldata signature)
        public
        view
        returns (bool)
    {
        return BN254.verify(signingDigest(taskHash, responseDigest), signature, operators.keyG2Of(key));
    }

    /// @notice The point that stands for a digest, so that others can check their own hashing.
    function hashToG1(bytes32 digest) external view returns (G1 memory) {
        return BN254.hashToG1(digest);
    }

    /// @dev The sum of the signers' keys. Reverts where too few signed, or too little stake.
    function _quorumKey(Task calldata task, Member[] calldata members, uint256[] calldata nonSigners)
        private
        view
        returns (G1 memory apk)
    {
        uint256 next; // position in nonSigners
        uint256 signed;
        uint256 total;
        for (uint256 i = 0; i < members.length; ++i) {
            total += members[i].stake;
            if (next < nonSigners.length && nonSigners[next] == i) {
                ++next;
            } else {
                signed += members[i].stake;
                apk = BN254.add(apk, members[i].key);
            }
        }
        if (next != nonSigners.length) revert NonSignersUnsorted(next);
        uint256 signers = members.length - next;
        if (signers * WHOLE < members.length * task.responseThreshold) {
            revert ResponseThresholdMissed(signers, members.length);
        }
        if (signed * WHOLE < total * task.stakeThreshold) revert StakeThresholdMissed(signed, total);
    }

    function _known(Task calldata task) private view returns (bytes32 taskHash) {
        taskHash = taskHashOf(task);
        if (_status[taskHash].state == State.Unknown) revert TaskUnknown(taskHash);
    }

    function _requireSet(Task calldata task, Member[] calldata members) private pure {
        bytes32 got = setHashOf(members);
        if (got != task.setHash) revert WrongOperatorSet(task.setHash, got);
    }

    function _notThreshold(uint16 threshold) private pure returns (bool) {
        return threshold == 0 || threshold > WHOLE;
    }
}
