// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @title The collateral that the devnet's Operators put up
contract CollateralToken is ERC20, ERC20Burnable, Ownable {
    /// @param owner Who may mint.
    constructor(address owner) ERC20("Nektar Collateral", "NKC") Ownable(owner) {}

    /// @notice Create `amount` for `to`. Only the owner.
    function mint(address to, uint256 amount) external onlyOwner {
        _mint(to, amount);
    }
}
