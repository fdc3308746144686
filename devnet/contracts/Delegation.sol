// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {NetworkRegistry} from "./NetworkRegistry.sol";

/// @title The collateral behind the Operators of one Network
/// @notice Delegators (Operators among them) put collateral behind an Operator. Whoever takes it back waits
/// for the bonding period, in which it no longer counts as stake and can still be slashed. A slashing falls
/// on all collateral behind the Operator alike. Proved ones can go nowhere but to the Network's Burner; a Network that
/// slashes on somebody's word as well says so by naming a trusted slasher, which names the receiver.
/// @dev Collateral is held in shares of a pool, so that a slashing is one subtraction. A pool that was
/// slashed to nothing starts over in the next generation; the shares of the old one are worth nothing.
contract Delegation is Ownable {
    using SafeERC20 for IERC20;

    /// @notice Collateral was put behind an Operator.
    event Delegated(address indexed operator, address indexed delegator, uint256 amount);
    /// @notice A Delegator asked for collateral back; it can be had from `readyBlock` on.
    event WithdrawalRequested(
        uint256 indexed withdrawalId, address indexed operator, address indexed delegator, uint256 amount, uint64 readyBlock
    );
    /// @notice A Delegator took collateral back.
    event Withdrawn(uint256 indexed withdrawalId, address indexed delegator, uint256 amount);
    /// @notice Collateral was slashed.
    event Slashed(address indexed operator, uint256 amount, address receiver);
    /// @notice Withdrawals from this Operator wait until after `untilBlock`: a slashing is pending.
    event WithdrawalsFrozen(address indexed operator, uint64 untilBlock);
    /// @notice The contract that may slash was named, once and for all.
    event SlasherSet(address slasher);
    /// @notice The contract that may slash for whoever it likes was named, once and for all.
    event TrustedSlasherSet(address slasher);

    /// @notice The amount is zero, or too small for a single share.
    error AmountTooSmall();
    /// @notice The Operator would have more stake than the maximum.
    error AboveMaximum(address operator, uint256 stake, uint256 maximum);
    /// @notice The Delegator has less than that behind the Operator.
    error NotEnoughDelegated(uint256 wanted, uint256 available);
    /// @notice There is no such withdrawal of this sender.
    error WithdrawalUnknown(uint256 withdrawalId);
    /// @notice The bonding period is not over, or a slashing is pending.
    error WithdrawalNotReady(uint256 withdrawalId, uint256 readyBlock);
    /// @notice Only a slasher may do this.
    error NotSlasher(address sender);
    /// @notice The slasher has been named already.
    error SlasherAlreadySet(address slasher);
    /// @notice The minimum is zero or above the maximum.
    error BoundsInvalid(uint256 minimum, uint256 maximum);

    struct Pool {
        uint256 assets;
        uint256 shares;
        uint64 generation;
    }

    struct Withdrawal {
        address operator;
        address delegator;
        uint256 shares; // of the operator's unbonding pool
        uint64 generation;
        uint64 readyBlock;
    }

    /// @notice The collateral.
    IERC20 public immutable token;
    /// @notice Which Networks there are; knows the Burner.
    NetworkRegistry public immutable registry;
    /// @notice The Network whose Operators are backed here.
    bytes32 public immutable network;
    /// @notice Least stake with which an Operator can be in an OperatorSet.
    uint256 public immutable minimum;
    /// @notice Most stake that an Operator can have.
    uint256 public immutable maximum;
    /// @notice Blocks between asking for collateral and getting it.
    uint64 public immutable bondingPeriod;
    /// @notice The contract that may slash.
    address public slasher;
    /// @notice The contract that may slash on somebody's word, and say who gets it; zero: none.
    address public trustedSlasher;
    /// @notice Whether an Operator's stake is under the minimum because so much was asked back, by whomever. A slashing
    /// alone brings nobody there: nobody is slashed for having been slashed. Enough new stake ends it.
    mapping(address operator => bool) public isUnderbonded;

    mapping(address operator => Pool) private _bonded;
    mapping(address operator => Pool) private _unbonding;
    mapping(address operator => mapping(uint64 generation => mapping(address delegator => uint256))) private _shares;
    mapping(uint256 withdrawalId => Withdrawal) private _withdrawals;
    mapping(address operator => uint64) private _frozenUntil;
    uint256 private _withdrawalCount;


    /// @param owner Who may name the slasher, once.
    /// @param token_ The collateral: a token that moves what it is told to move, no less.
    /// @param registry_ Which Networks there are.
    /// @param network_ The Network's id.
    /// @param minimum_ Least stake of a member of an OperatorSet.
    /// @param maximum_ Most stake of an Operator.
    /// @param bondingPeriod_ In blocks. The SlashingManager refuses one in which offenders could leave in time.
    constructor(
        address owner,
        IERC20 token_,
        NetworkRegistry registry_,
        bytes32 network_,
        uint256 minimum_,
        uint256 maximum_,
        uint64 bondingPeriod_
    ) Ownable(owner) {
        if (minimum_ == 0 || minimum_ > maximum_) revert BoundsInvalid(minimum_, maximum_);
        token = token_;
        registry = registry_;
        network = network_;
        minimum = minimum_;
        maximum = maximum_;
        bondingPeriod = bondingPeriod_;
    }

    /// @notice Name the contract that may slash. Only the owner, once.
    function setSlasher(address slasher_) external onlyOwner {
        if (slasher != address(0)) revert SlasherAlreadySet(slasher);
        slasher = slasher_;
        emit SlasherSet(slasher_);
    }

    /// @notice Name the contract that may slash on somebody's word. Only the owner, once, if ever.
    function setTrustedSlasher(address slasher_) external onlyOwner {
        if (trustedSlasher != address(0)) revert SlasherAlreadySet(trustedSlasher);
        trustedSlasher = slasher_;
        emit TrustedSlasherSet(slasher_);
    }

    /// @notice Put `amount` behind `operator`, out of what the sender has approved.
    function delegate(address operator, uint256 amount) external {
        Pool storage pool = _bonded[operator];
        if (pool.assets + amount > maximum) revert AboveMaximum(operator, pool.assets + amount, maximum);
        _shares[operator][pool.generation][msg.sender] += _enter(pool, amount);
        if (pool.assets >= minimum) isUnderbonded[operator] = false;
        token.safeTransferFrom(msg.sender, address(this), amount);
        emit Delegated(operator, msg.sender, amount);
    }

    /// @notice Ask for `amount` back from behind `operator`. It stops counting as stake at once. An Operator in the
    /// newest OperatorSet must not fall below the minimum by it (see SlashingManager.proveBondBreach).
    /// @return withdrawalId What `withdraw` takes after the bonding period.
    function requestWithdrawal(address operator, uint256 amount) external returns (uint256 withdrawalId) {
        Pool storage pool = _bonded[operator];
        uint256 available = delegatedBy(operator, msg.sender);
        if (amount > available) revert NotEnoughDelegated(amount, available);
        if (amount == 0) revert AmountTooSmall();
        // Rounded up: whoever leaves never takes from those who stay.
        uint256 shares = Math.mulDiv(amount, pool.shares, pool.assets, Math.Rounding.Ceil);
        _shares[operator][pool.generation][msg.sender] -= shares;
        _leave(pool, shares, amount);
        if (pool.assets < minimum && pool.assets + amount >= minimum) isUnderbonded[operator] = true;
        withdrawalId = ++_withdrawalCount;
        Pool storage waiting = _unbonding[operator];
        uint64 readyBlock = uint64(block.number) + bondingPeriod;
        _withdrawals[withdrawalId] =
            Withdrawal(operator, msg.sender, _enter(waiting, amount), waiting.generation, readyBlock);
        emit WithdrawalRequested(withdrawalId, operator, msg.sender, amount, readyBlock);
    }

    /// @notice Take back what was asked for; less where the Operator was slashed in between.
    function withdraw(uint256 withdrawalId) external {
        Withdrawal memory asked = _withdrawals[withdrawalId];
        if (asked.delegator != msg.sender) revert WithdrawalUnknown(withdrawalId);
        uint256 readyBlock = Math.max(asked.readyBlock, uint256(_frozenUntil[asked.operator]) + 1);
        if (block.number < readyBlock) revert WithdrawalNotReady(withdrawalId, readyBlock);
        delete _withdrawals[withdrawalId];
        Pool storage pool = _unbonding[asked.operator];
        uint256 amount;
        if (asked.generation == pool.generation) {
            amount = Math.mulDiv(asked.shares, pool.assets, pool.shares);
            _leave(pool, asked.shares, amount);
            token.safeTransfer(msg.sender, amount);
        }
        emit Withdrawn(withdrawalId, msg.sender, amount);
    }

    /// @notice Slash up to `amount` of what is behind `operator`, for the Burner. Only the slasher.
    /// @return taken What was there to take.
    /// @return burner Where it went.
    function slash(address operator, uint256 amount) external returns (uint256 taken, address burner) {
        if (msg.sender != slasher) revert NotSlasher(msg.sender);
        burner = registry.burnerOf(network);
        taken = _slash(operator, amount, burner);
    }

    /// @notice Slash up to `amount` of what is behind `operator`, for whoever is named. Only the trusted slasher.
    /// @return taken What was there to take.
    function slashTo(address operator, uint256 amount, address receiver) external returns (uint256 taken) {
        if (msg.sender != trustedSlasher) revert NotSlasher(msg.sender);
        taken = _slash(operator, amount, receiver);
    }

    /// @notice Hold back withdrawals from `operator` until after a block. Only the slashers.
    function freeze(address operator, uint64 untilBlock) external {
        if (msg.sender != slasher && msg.sender != trustedSlasher) revert NotSlasher(msg.sender);
        if (untilBlock <= _frozenUntil[operator]) return;
        _frozenUntil[operator] = untilBlock;
        emit WithdrawalsFrozen(operator, untilBlock);
    }

    /// @notice The Operator's stake: what is behind it and has not been asked back.
    function stakeOf(address operator) external view returns (uint256) {
        return _bonded[operator].assets;
    }

    /// @notice All that can be slashed: the stake, and what was asked back and is still here.
    function slashableOf(address operator) external view returns (uint256) {
        return _bonded[operator].assets + _unbonding[operator].assets;
    }

    /// @notice What one Delegator has behind an Operator.
    function delegatedBy(address operator, address delegator) public view returns (uint256) {
        Pool storage pool = _bonded[operator];
        if (pool.shares == 0) return 0;
        return Math.mulDiv(_shares[operator][pool.generation][delegator], pool.assets, pool.shares);
    }

    function _slash(address operator, uint256 amount, address receiver) private returns (uint256 taken) {
        Pool storage bonded = _bonded[operator];
        Pool storage waiting = _unbonding[operator];
        uint256 total = bonded.assets + waiting.assets;
        taken = Math.min(amount, total);
        if (taken != 0) {
            uint256 fromWaiting = Math.mulDiv(waiting.assets, taken, total);
            _cut(waiting, fromWaiting);
            _cut(bonded, taken - fromWaiting);
            token.safeTransfer(receiver, taken);
        }
        emit Slashed(operator, taken, receiver);
    }

    function _enter(Pool storage pool, uint256 amount) private returns (uint256 shares) {
        shares = pool.shares == 0 ? amount : Math.mulDiv(amount, pool.shares, pool.assets);
        if (shares == 0) revert AmountTooSmall();
        pool.assets += amount;
        pool.shares += shares;
    }

    function _leave(Pool storage pool, uint256 shares, uint256 amount) private {
        pool.shares -= shares;
        pool.assets -= amount;
        _startOverIfEmpty(pool);
    }

    function _cut(Pool storage pool, uint256 amount) private {
        pool.assets -= amount;
        _startOverIfEmpty(pool);
    }

    /// @dev Shares of nothing, and dust without shares, both start over: neither may dilute who comes next.
    function _startOverIfEmpty(Pool storage pool) private {
        if (pool.assets == 0 && pool.shares != 0) {
            pool.shares = 0;
            pool.generation += 1;
        }
    }
}
