// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Slasher} from "./Slasher.sol";
import {SlashingManager} from "./SlashingManager.sol";

/// @title Slashing on somebody's word
/// @notice A Network may have this beside its SlashingManager, as middleware elsewhere has: its builder appoints an
/// authority, and that authority's requests need no proof. They have the same life as proved ones, the same
/// committee and the same windows. Everything that a proof rules out the authority can ask for: a slashing of someone
/// honest, of a Task that nobody submitted, for an offence that lies too far back, twice for one offence. Worse, the
/// Network trusts it with two things more: it names who gets what is taken, and it can have a request executed
/// whatever was voted and whenever it likes. That is what a Network may do, and what those who watch it must see.
contract TrustedSlasher is Slasher {
    /// @notice The builder appointed who may ask; zero: nobody.
    event AuthorityAppointed(address authority);
    /// @notice The request that was just made rests on the authority's word. What is taken is the receiver's.
    /// `evidence` is what the authority shows, as calldata for the SlashingManager which would prove it; empty where
    /// it shows none. Nothing here looks at it.
    event RequestedOnTrust(
        bytes32 indexed requestId, address indexed authority, address receiver, bytes evidence
    );

    /// @notice Only the authority may do this.
    error NotAuthority(address sender);
    /// @notice Only the Network's builder may appoint.
    error NotBuilder(address sender);

    /// @notice Who may ask; zero: nobody.
    address public authority;
    /// @notice So many requests were made for an offence.
    mapping(bytes32 condition => mapping(bytes32 taskHash => mapping(address operator => uint256))) public requestsFor;

    mapping(bytes32 requestId => address) private _receivers;

    modifier onlyAuthority() {
        if (msg.sender != authority) revert NotAuthority(msg.sender);
        _;
    }

    /// @notice The Network, committee and windows are those of `proved`.
    /// @param proved Where the same Network slashes by proof.
    constructor(SlashingManager proved)
        Slasher(proved.delegation(), proved.vetoCommittee(), proved.vetoWindow(), proved.executionWindow())
    {}

    /// @notice Appoint who may ask, in place of whoever could before. Only the Network's builder.
    function appoint(address authority_) external {
        if (msg.sender != networks.builderOf(network)) revert NotBuilder(msg.sender);
        authority = authority_;
        emit AuthorityAppointed(authority_);
    }

    /// @notice Ask for a slashing, for a condition that the Network has. Only the authority.
    /// @param condition What it is said to be for.
    /// @param taskHash The Task that it is said to be about.
    /// @param operator Who is to be slashed.
    /// @param amount How much is to be taken.
    /// @param receiver Who gets it; zero: the Burner.
    /// @param evidence What shows it, if anything does: see RequestedOnTrust.
    /// @return requestId The slashing request: another one each time.
    function request(
        bytes32 condition,
        bytes32 taskHash,
        address operator,
        uint256 amount,
        address receiver,
        bytes calldata evidence
    ) external onlyAuthority returns (bytes32 requestId) {
        requestId = requestIdOf(condition, taskHash, operator, requestsFor[condition][taskHash][operator]++);
        if (receiver == address(0)) receiver = networks.burnerOf(network);
        _receivers[requestId] = receiver;
        _open(requestId, condition, operator, taskHash, amount);
        emit RequestedOnTrust(requestId, msg.sender, receiver, evidence);
    }

    /// @notice Execute a request whatever was voted, and before or after its window; once. Only the authority.
    function executeRegardless(bytes32 requestId) external onlyAuthority {
        if (_stateOf(requestId) == State.Executed) revert RequestClosed(requestId, State.Executed);
        _execute(requestId);
    }

    /// @notice The request for an offence that comes after so many others for it. As in the SlashingManager, its name is
    /// the same on every fork.
    function requestIdOf(bytes32 condition, bytes32 taskHash, address operator, uint256 earlier)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), condition, taskHash, operator, earlier));
    }

    function _take(bytes32 requestId, address operator, uint256 amount)
        internal
        override
        returns (uint256 taken, address receiver)
    {
        receiver = _receivers[requestId];
        taken = delegation.slashTo(operator, amount, receiver);
    }
}
