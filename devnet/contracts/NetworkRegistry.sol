// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @title Which Networks there are, and what each of them allows
/// @notice The registry's owner lists Networks; a Network's builder says which task types, slashing
/// conditions and submitters it has. The Burner is fixed when a Network is listed: whoever could move it
/// could move slashed funds.
contract NetworkRegistry is Ownable {
    /// @notice A Network was listed.
    event NetworkListed(bytes32 indexed network, address indexed builder, address burner);
    /// @notice A Network allowed or disallowed a task type.
    event TaskTypeAllowed(bytes32 indexed network, bytes32 indexed taskType, bool allowed);
    /// @notice A Network allowed or disallowed a slashing condition.
    event ConditionAllowed(bytes32 indexed network, bytes32 indexed condition, bool allowed);
    /// @notice A Network allowed or disallowed a submitter of tasks.
    event SubmitterAllowed(bytes32 indexed network, address indexed submitter, bool allowed);

    /// @notice No Network is listed under this id.
    error NetworkUnknown(bytes32 network);
    /// @notice This id is taken.
    error NetworkAlreadyListed(bytes32 network);
    /// @notice Only the Network's builder may change what it allows.
    error NotBuilder(bytes32 network, address sender);
    /// @notice A Network needs a builder and a Burner.
    error AddressIsZero();

    struct Network {
        address builder;
        address burner;
    }

    mapping(bytes32 network => Network) private _networks;
    /// @notice Whether a Network has this task type.
    mapping(bytes32 network => mapping(bytes32 taskType => bool)) public isTaskType;
    /// @notice Whether a Network slashes for this condition (keccak256 of its name).
    mapping(bytes32 network => mapping(bytes32 condition => bool)) public isCondition;
    /// @notice Whether this account may submit the Network's tasks.
    mapping(bytes32 network => mapping(address submitter => bool)) public isSubmitter;

    modifier onlyBuilder(bytes32 network) {
        if (builderOf(network) != msg.sender) revert NotBuilder(network, msg.sender);
        _;
    }

    /// @param owner Who may list Networks.
    constructor(address owner) Ownable(owner) {}

    /// @notice List a Network. Only the owner, once for each id.
    function listNetwork(bytes32 network, address builder, address burner) external onlyOwner {
        if (_networks[network].builder != address(0)) revert NetworkAlreadyListed(network);
        if (builder == address(0) || burner == address(0)) revert AddressIsZero();
        _networks[network] = Network(builder, burner);
        emit NetworkListed(network, builder, burner);
    }

    /// @notice Allow or disallow a task type. Only the builder.
    function allowTaskType(bytes32 network, bytes32 taskType, bool allowed) external onlyBuilder(network) {
        isTaskType[network][taskType] = allowed;
        emit TaskTypeAllowed(network, taskType, allowed);
    }

    /// @notice Allow or disallow a slashing condition. Only the builder.
    function allowCondition(bytes32 network, bytes32 condition, bool allowed) external onlyBuilder(network) {
        isCondition[network][condition] = allowed;
        emit ConditionAllowed(network, condition, allowed);
    }

    /// @notice Allow or disallow a submitter. Only the builder.
    function allowSubmitter(bytes32 network, address submitter, bool allowed) external onlyBuilder(network) {
        isSubmitter[network][submitter] = allowed;
        emit SubmitterAllowed(network, submitter, allowed);
    }

    /// @notice Who builds this Network. Reverts with NetworkUnknown.
    function builderOf(bytes32 network) public view returns (address) {
        address builder = _networks[network].builder;
        if (builder == address(0)) revert NetworkUnknown(network);
        return builder;
    }

    /// @notice The one place where this Network's slashed funds may go. Reverts with NetworkUnknown.
    function burnerOf(bytes32 network) external view returns (address) {
        builderOf(network);
        return _networks[network].burner;
    }
}
