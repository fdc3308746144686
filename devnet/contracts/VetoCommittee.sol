// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What can be vetoed
interface IVetoable {
    /// @notice Overrule a request. Only the VetoCommittee. An id names what the request is about, on any fork:
    /// votes are for the id alone.
    function veto(bytes32 requestId) external;
}

/// @title The people who can overrule a wrong slashing: m of n
/// @notice The vote that makes m sends the veto. The committee is fixed; it can serve several Networks.
contract VetoCommittee {
    /// @notice A member voted to overrule a request; so many have now, of those that it takes.
    event VetoVoted(
        address indexed target, bytes32 indexed requestId, address indexed member, uint256 votes, uint256 threshold
    );

    /// @notice The sender is not a member.
    error NotCommitteeMember(address sender);
    /// @notice The member has voted on this already.
    error AlreadyVoted(address member, bytes32 requestId);
    /// @notice m must be 1 to n.
    error ThresholdInvalid(uint256 threshold, uint256 members);
    /// @notice A member is named twice, or is zero.
    error MemberInvalid(address member);

    /// @notice So many votes overrule a request.
    uint256 public immutable threshold;
    /// @notice So many members there are.
    uint256 public immutable size;
    /// @notice Whether this account is a member.
    mapping(address member => bool) public isMember;
    /// @notice How many voted to overrule a request.
    mapping(address target => mapping(bytes32 requestId => uint256)) public votes;
    /// @notice Whether a member voted to overrule a request.
    mapping(address target => mapping(bytes32 requestId => mapping(address member => bool))) public hasVoted;

    /// @param members Who may vote.
    /// @param threshold_ So many votes overrule.
    constructor(address[] memory members, uint256 threshold_) {
        if (threshold_ == 0 || threshold_ > members.length) revert ThresholdInvalid(threshold_, members.length);
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i] == address(0) || isMember[members[i]]) revert MemberInvalid(members[i]);
            isMember[members[i]] = true;
        }
        threshold = threshold_;
        size = members.length;
    }

    /// @notice Vote to overrule a slashing request. Only members, once each; the m-th vote is the veto.
    function vote(IVetoable target, bytes32 requestId) external {
        if (!isMember[msg.sender]) revert NotCommitteeMember(msg.sender);
        if (hasVoted[address(target)][requestId][msg.sender]) revert AlreadyVoted(msg.sender, requestId);
        hasVoted[address(target)][requestId][msg.sender] = true;
        uint256 count = ++votes[address(target)][requestId];
        emit VetoVoted(address(target), requestId, msg.sender, count, threshold);
        if (count == threshold) target.veto(requestId);
    }
}
