// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// A point of BN254's G1 (EIP-196). (0, 0) is the identity.
struct G1 {
    uint256 x;
    uint256 y;
}

/// A point of BN254's G2 as EIP-197 reads it: the imaginary part of each coordinate first.
struct G2 {
    uint256[2] x;
    uint256[2] y;
}

/// @title BLS signatures on BN254: signatures in G1, keys in G2 with a twin in G1
/// @notice The precompiles (EIP-196, EIP-197) refuse coordinates ≥ p, points off the curve and G2 points
/// out of the subgroup; this library adds what they let pass: the identity is never a key or a signature.
library BN254 {
    /// @notice A precompile refused a point: a coordinate ≥ p, off the curve, or out of the subgroup.
    error InvalidPoint();
    /// @notice The identity was given where a key or a signature belongs.
    error IdentityPoint();

    /// @dev The field's modulus p.
    uint256 internal constant P = 21888242871839275222246405745257275088696311157297823662689037894645226208583;
    /// @dev The groups' order r.
    uint256 internal constant R = 21888242871839275222246405745257275088548364400416034343698204186575808495617;
    /// @dev (p + 1) / 4: p is 3 mod 4, so this power of a square is one of its roots.
    uint256 private constant ROOT = 0xc19139cb84c680a6e14116da060561765e05aa45a1c72a34f082305b61f3f52;

    // The negated generator of G2.
    uint256 private constant NEG_G2_X1 = 11559732032986387107991004021392285783925812861821192530917403151452391805634;
    uint256 private constant NEG_G2_X0 = 10857046999023057135944570762232829481370756359578518086990519993285655852781;
    uint256 private constant NEG_G2_Y1 = 17805874995975841540914202342111839520379459829704422454583296818431106115052;
    uint256 private constant NEG_G2_Y0 = 13392588948715843804641432497768002650278120570034223513918757245338268106653;

    /// @notice A generator of G1.
    function generator() internal pure returns (G1 memory) {
        return G1(1, 2);
    }

    /// @notice Whether a point is the identity of G1.
    function isIdentity(G1 memory a) internal pure returns (bool) {
        return a.x == 0 && a.y == 0;
    }

    /// @notice Whether a point is the identity of G2.
    function isIdentity(G2 memory a) internal pure returns (bool) {
        return (a.x[0] | a.x[1] | a.y[0] | a.y[1]) == 0;
    }

    /// @notice a + b. Reverts with InvalidPoint.
    function add(G1 memory a, G1 memory b) internal view returns (G1 memory sum) {
        uint256[4] memory input = [a.x, a.y, b.x, b.y];
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gas(), 0x06, input, 0x80, sum, 0x40)
        }
        if (!ok) revert InvalidPoint();
    }

    /// @notice scalar · a. Reverts with InvalidPoint.
    function mul(G1 memory a, uint256 scalar) internal view returns (G1 memory product) {
        uint256[3] memory input = [a.x, a.y, scalar];
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gas(), 0x07, input, 0x60, product, 0x40)
        }
        if (!ok) revert InvalidPoint();
    }

    /// @notice Hash to G1 by try-and-increment: x = digest mod p, then x + 1 … until x³ + 3 is a square;
    /// y is its (p + 1)/4-th power. About two tries on average; digests come from keccak, so nobody can
    /// look for one that needs many more than that at a price worth paying.
    function hashToG1(bytes32 digest) internal view returns (G1 memory) {
        uint256 x = uint256(digest) % P;
        while (true) {
            uint256 square = addmod(mulmod(mulmod(x, x, P), x, P), 3, P);
            uint256 y = _power(square, ROOT);
            if (mulmod(y, y, P) == square) return G1(x, y);
            x = addmod(x, 1, P);
        }
        revert InvalidPoint(); // never reached: the loop ends by returning
    }

    /// @notice Whether `signature` over `digest` was made with the secret behind `keyG2`:
    /// e(σ, −G2) · e(H, key) = 1. Reverts with InvalidPoint or IdentityPoint.
    function verify(bytes32 digest, G1 memory signature, G2 memory keyG2) internal view returns (bool) {
        if (isIdentity(signature) || isIdentity(keyG2)) revert IdentityPoint();
        return _pairingIsOne(signature, hashToG1(digest), keyG2);
    }

    /// @notice As `verify`, and at once that `key` and `keyG2` are twins (one secret behind both): with
    /// γ = H(all that is compared), e(σ + γ·key, −G2) · e(H + γ·G1, keyG2) = 1.
    /// Reverts with InvalidPoint or IdentityPoint.
    function verifyWithTwin(bytes32 digest, G1 memory signature, G1 memory key, G2 memory keyG2)
        internal
        view
        returns (bool)
    {
        if (isIdentity(signature) || isIdentity(key) || isIdentity(keyG2)) revert IdentityPoint();
        uint256 gamma = uint256(keccak256(abi.encode(digest, signature, key, keyG2))) % R;
        return _pairingIsOne(
            add(signature, mul(key, gamma)), add(hashToG1(digest), mul(generator(), gamma)), keyG2
        );
    }

    /// @dev e(a, −G2) · e(b, c) = 1.
    function _pairingIsOne(G1 memory a, G1 memory b, G2 memory c) private view returns (bool) {
        uint256[12] memory input = [
            a.x, a.y, NEG_G2_X1, NEG_G2_X0, NEG_G2_Y1, NEG_G2_Y0, b.x, b.y, c.x[0], c.x[1], c.y[0], c.y[1]
        ];
        uint256[1] memory one;
        bool ok;
        assembly ("memory-safe") {
            ok := staticcall(gas(), 0x08, input, 0x180, one, 0x20)
        }
        if (!ok) revert InvalidPoint();
        return one[0] == 1;
    }

    /// @dev base^exponent mod p, by EIP-198.
    function _power(uint256 base, uint256 exponent) private view returns (uint256) {
        uint256[6] memory input = [uint256(32), 32, 32, base, exponent, P];
        uint256[1] memory power;
        assembly ("memory-safe") {
            if iszero(staticcall(gas(), 0x05, input, 0xc0, power, 0x20)) { revert(0, 0) }
        }
        return power[0];
    }
}
