// SPDX-License-Identifier: Apache-2.0
//! One test in one microVM.
