//! Empty: the package exists only so that cargo fetches the sources its manifest names.
