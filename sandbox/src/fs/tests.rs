// SPDX-License-Identifier: Apache-2.0
//! A worker, started for real.
