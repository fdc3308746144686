// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

/// @title Where slashed collateral goes, and from where it cannot come back
contract Burner {
    /// @notice Slashed collateral was destroyed.
    event Burned(uint256 amount);

    /// @notice The collateral that this Burner destroys.
    ERC20Burnable public immutable token;

    /// @param token_ The collateral.
    constructor(ERC20Burnable token_) {
        token = token_;
    }

    /// @notice Destroy all that has come here. Anyone may.
    function burn() external {
        uint256 amount = token.balanceOf(address(this));
        token.burn(amount);
        emit Burned(amount);
    }
}
