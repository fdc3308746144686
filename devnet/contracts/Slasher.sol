// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Delegation} from "./Delegation.sol";
import {NetworkRegistry} from "./NetworkRegistry.sol";

/// @title The life of a slashing: requested, with time for a veto, then executed or expired
/// @notice For a window after the request the VetoCommittee can overrule it; in the window after that anyone can
/// execute it, once; what is left when that has passed has expired, which no event says. Whatever the way by which
/// requests come, this is the same for all of them.
abstract contract Slasher {
    /// @notice Somebody is to be slashed. It can be vetoed until `vetoDeadline`, and executed in later blocks until
    /// `executionDeadline`. `taskHash` is that of the OperatorSet where no Task is part of the condition.
    event SlashingRequested(
        bytes32 indexed requestId,
        bytes32 indexed condition,
        address indexed operator,
        bytes32 taskHash,
        uint256 amount,
        uint64 vetoDeadline,
        uint64 executionDeadline
    );
    /// @notice The VetoCommittee overruled a request.
    event SlashingVetoed(bytes32 indexed requestId);
    /// @notice Collateral was taken. `amount` is less than requested where less was left.
    event SlashingExecuted(bytes32 indexed requestId, address indexed operator, uint256 amount, address receiver);

    /// @notice The Network does not slash for this.
    error ConditionNotAllowed(bytes32 condition);
    /// @notice This offence has been requested already.
    error AlreadyRequested(bytes32 requestId);
    /// @notice There is no such request.
    error RequestUnknown(bytes32 requestId);
    /// @notice The request was vetoed or executed already.
    error RequestClosed(bytes32 requestId, State state);
    /// @notice Only the VetoCommittee may veto.
    error NotVetoCommittee(address sender);
    /// @notice The window for a veto has passed.
    error VetoWindowPassed(uint64 vetoDeadline);
    /// @notice The window for a veto has not passed.
    error VetoWindowOpen(uint64 vetoDeadline);
    /// @notice The window for the execution has passed.
    error ExecutionWindowPassed(uint64 executionDeadline);
    /// @notice Without a window nobody could veto, and collateral could leave as soon as a request is made.
    error VetoWindowIsZero();
    /// @notice Without a window nobody could execute.
    error ExecutionWindowIsZero();

    /// How a request stands. One that has expired is still pending.
    enum State {
        Unknown,
        Pending,
        Vetoed,
        Executed
    }

    struct Request {
        State state;
        uint64 vetoDeadline;
        address operator;
        bytes32 condition;
        bytes32 taskHash; // or the OperatorSet's hash
        uint256 amount;
    }

    /// @notice Which Networks there are, and what they allow.
    NetworkRegistry public immutable networks;
    /// @notice The Network that slashes here.
    bytes32 public immutable network;
    /// @notice The collateral.
    Delegation public immutable delegation;
    /// @notice Who may overrule.
    address public immutable vetoCommittee;
    /// @notice Blocks for a veto.
    uint64 public immutable vetoWindow;
    /// @notice Blocks after these for the execution.
    uint64 public immutable executionWindow;

    mapping(bytes32 requestId => Request) private _requests;

    /// @param delegation_ The collateral, and with it the Network.
    /// @param vetoCommittee_ Who may overrule.
    /// @param vetoWindow_ In blocks.
    /// @param executionWindow_ In blocks.
    constructor(Delegation delegation_, address vetoCommittee_, uint64 vetoWindow_, uint64 executionWindow_) {
        if (vetoWindow_ == 0) revert VetoWindowIsZero();
        if (executionWindow_ == 0) revert ExecutionWindowIsZero();
        networks = delegation_.registry();
        network = delegation_.network();
        delegation = delegation_;
        vetoCommittee = vetoCommittee_;
        vetoWindow = vetoWindow_;
        executionWindow = executionWindow_;
    }

    /// @notice Overrule a request, until its deadline. Only the VetoCommittee.
    function veto(bytes32 requestId) external {
        if (msg.sender != vetoCommittee) revert NotVetoCommittee(msg.sender);
        Request storage request = _pending(requestId);
        if (block.number > request.vetoDeadline) revert VetoWindowPassed(request.vetoDeadline);
        request.state = State.Vetoed;
        emit SlashingVetoed(requestId);
    }

    /// @notice Execute a request that was not overruled. Anyone may, in the blocks of the window after that for a veto.
    function execute(bytes32 requestId) external {
        Request storage request = _pending(requestId);
        if (block.number <= request.vetoDeadline) revert VetoWindowOpen(request.vetoDeadline);
        uint64 last = request.vetoDeadline + executionWindow;
        if (block.number > last) revert ExecutionWindowPassed(last);
        _execute(requestId);
    }

    /// @notice How a request stands.
    function requestOf(bytes32 requestId) external view returns (Request memory) {
        return _requests[requestId];
    }

    /// @dev A new request; withdrawals are held back for as long as it can be executed.
    function _open(bytes32 requestId, bytes32 condition, address operator, bytes32 taskHash, uint256 amount) internal {
        if (!networks.isCondition(network, condition)) revert ConditionNotAllowed(condition);
        if (_requests[requestId].state != State.Unknown) revert AlreadyRequested(requestId);
        uint64 vetoDeadline = uint64(block.number) + vetoWindow;
        uint64 executionDeadline = vetoDeadline + executionWindow;
        _requests[requestId] = Request(State.Pending, vetoDeadline, operator, condition, taskHash, amount);
        delegation.freeze(operator, executionDeadline);
        emit SlashingRequested(requestId, condition, operator, taskHash, amount, vetoDeadline, executionDeadline);
    }

    function _execute(bytes32 requestId) internal {
        Request storage request = _requests[requestId];
        request.state = State.Executed;
        (uint256 taken, address receiver) = _take(requestId, request.operator, request.amount);
        emit SlashingExecuted(requestId, request.operator, taken, receiver);
    }

    /// @dev Slash: what was there to take, and where it went.
    function _take(bytes32 requestId, address operator, uint256 amount)
        internal
        virtual
        returns (uint256 taken, address receiver);

    function _stateOf(bytes32 requestId) internal view returns (State state) {
        state = _requests[requestId].state;
        if (state == State.Unknown) revert RequestUnknown(requestId);
    }

    function _pending(bytes32 requestId) private view returns (Request storage) {
        State state = _stateOf(requestId);
        if (state != State.Pending) revert RequestClosed(requestId, state);
        return _requests[requestId];
    }
}
